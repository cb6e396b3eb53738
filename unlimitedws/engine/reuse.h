/* The payload of a short message as an object, in that of the message before where its handler kept nothing
 * of it: then nobody but the caller has a reference to it, so nobody can see it change, and it is made as a
 * new one of that size would be. What was remembered about the old content, its hash, is forgotten.
 * That saves a tenth of the instructions of a pipelined echo (callgrind: 110 of 1,036). */
#ifndef UNLIMITEDWS_REUSE_H
#define UNLIMITEDWS_REUSE_H
#include <Python.h>
#include "bytes.h"

static inline int uws_is_free_bytes(PyObject *before, Py_ssize_t size)
{
    /* Objects of up to one byte may be the interpreter's own. */
    return before && Py_REFCNT(before) == 1 && PyBytes_CheckExact(before) && size > 1 && PyBytes_GET_SIZE(before) == size;
}

static inline int uws_is_free_text(PyObject *before, Py_ssize_t size)
{
    /* The interpreter's table of interned strings counts no reference of its own. */
    return before && Py_REFCNT(before) == 1 && PyUnicode_CheckExact(before) && size > 1 && PyUnicode_GET_LENGTH(before) == size &&
           PyUnicode_IS_COMPACT_ASCII(before) && !PyUnicode_CHECK_INTERNED(before);
}

/* The masked payload as bytes, in *payload: NULL, or what held the one before. 1; -1: no memory, an exception is set. */
static inline int uws_bytes(PyObject **payload, const uint8_t *data, size_t size, uint32_t mask)
{
    if (uws_is_free_bytes(*payload, size)) {
/* Deprecated since 3.11 for those who read it; the interpreter still keeps the hash there. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
        ((PyBytesObject *)*payload)->ob_shash = -1;
#pragma GCC diagnostic pop
    } else {
        Py_XSETREF(*payload, PyBytes_FromStringAndSize(NULL, size));
        if (!*payload)
            return -1;
    }
    uws_unmask((uint8_t *)PyBytes_AS_STRING(*payload), data, size, mask);
    return 1;
}

/* The same for text. 0: it is not ASCII, and has to be looked at closely. */
static inline int uws_ascii(PyObject **payload, const uint8_t *data, size_t size, uint32_t mask)
{
    if (uws_is_free_text(*payload, size)) {
        ((PyASCIIObject *)*payload)->hash = -1;
    } else {
        Py_XSETREF(*payload, PyUnicode_New(size, 127));
        if (!*payload)
            return -1;
    }
    if (uws_unmask((uint8_t *)PyUnicode_DATA(*payload), data, size, mask) < 0x80)
        return 1;
    Py_CLEAR(*payload);
    return 0;
}
#endif
