/* Whether the object of one message may hold the next: nobody but the caller has a reference to it, so
 * nobody can see it change, and it is made as a new one of that size would be. What was remembered about
 * the old content, its hash, is forgotten. */
#ifndef UNLIMITEDWS_REUSE_H
#define UNLIMITEDWS_REUSE_H
#include <Python.h>

static inline int uws_reuse_bytes(PyObject *before, Py_ssize_t size)
{
    /* Objects of up to one byte may be the interpreter's own. */
    if (Py_REFCNT(before) != 1 || !PyBytes_CheckExact(before) || size < 2 || PyBytes_GET_SIZE(before) != size)
        return 0;
/* Deprecated since 3.11 for those who read it; the interpreter still keeps the hash there. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    ((PyBytesObject *)before)->ob_shash = -1;
#pragma GCC diagnostic pop
    return 1;
}

static inline int uws_reuse_text(PyObject *before, Py_ssize_t size)
{
    /* The interpreter's table of interned strings counts no reference of its own. */
    if (Py_REFCNT(before) != 1 || !PyUnicode_CheckExact(before) || size < 2 || PyUnicode_GET_LENGTH(before) != size ||
        !PyUnicode_IS_COMPACT_ASCII(before) || PyUnicode_CHECK_INTERNED(before))
        return 0;
    ((PyASCIIObject *)before)->hash = -1;
    return 1;
}
#endif
