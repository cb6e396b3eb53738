# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The path, endpoint, subprotocol and deflate terms of connections: 4 bytes in each connection's row, and the strings
once for all that share them, gone with the last."""

from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport uint32_t
from libc.stdlib cimport free, realloc


cdef class RouteTable:
    def __cinit__(self):
        self.free_numbers, self.numbers, self.targets = [], {}, {}

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.used):
            if self.routes[i].users:
                self.drop(&self.routes[i])
        free(self.routes)

    cdef long find(self, bytes target):
        """The route of a request target that is in use; -1: resolve it, then `add`."""
        cdef object number = self.targets.get(target)
        return -1 if number is None else <long>number

    cdef uint32_t add(self, str path, uint32_t endpoint, object subprotocol, object deflate, bytes target) except? 0xFFFFFFFF:
        """The number of such a route, made if need be; without users until the caller counts one."""
        key = (path, endpoint, subprotocol, deflate)
        cdef object known = self.numbers.get(key)
        cdef uint32_t number
        cdef Route* route
        if known is not None:
            return known
        number = self.free_numbers.pop() if self.free_numbers else self.enlarge()
        route = &self.routes[number]
        route.path = <PyObject*>path
        route.subprotocol = <PyObject*>subprotocol
        route.deflate = <PyObject*>deflate
        route.target = <PyObject*>target if target is not None else NULL
        route.endpoint = endpoint
        route.users = 0
        Py_INCREF(path)
        Py_INCREF(subprotocol)
        Py_INCREF(deflate)
        self.numbers[key] = number
        if target is not None:
            Py_INCREF(target)
            self.targets[target] = number
        return number

    cdef uint32_t enlarge(self) except? 0xFFFFFFFF:
        cdef void* moved
        if self.used == self.room:
            moved = realloc(self.routes, max(<uint32_t>16, self.room * 2) * sizeof(Route))
            if moved == NULL:
                raise MemoryError
            self.routes = <Route*>moved
            self.room = max(<uint32_t>16, self.room * 2)
        self.used += 1
        return self.used - 1

    cdef int release(self, uint32_t number) except -1:
        """One user less; the last one takes the route with it."""
        cdef Route* route = &self.routes[number]
        route.users -= 1
        if route.users:
            return 0
        del self.numbers[<object>route.path, route.endpoint, <object>route.subprotocol, <object>route.deflate]
        if route.target != NULL:
            del self.targets[<object>route.target]
        self.drop(route)
        self.free_numbers.append(number)
        return 0

    cdef int drop(self, Route* route) except -1:
        Py_DECREF(<object>route.path)
        Py_DECREF(<object>route.subprotocol)
        Py_DECREF(<object>route.deflate)
        if route.target != NULL:
            Py_DECREF(<object>route.target)
        return 0
