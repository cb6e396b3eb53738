"""The system calls of the native engine, as C declares them."""

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout)
    enum: EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    enum: EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR

cdef extern from "sys/socket.h" nogil:
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        unsigned short sa_family
    cdef struct sockaddr_storage:
        unsigned short ss_family
    cdef struct iovec "iovec":
        void* iov_base
        size_t iov_len
    cdef struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    int accept4(int fd, sockaddr* address, socklen_t* size, int flags)
    ssize_t recv(int fd, void* buffer, size_t size, int flags)
    ssize_t send(int fd, const void* buffer, size_t size, int flags)
    ssize_t sendmsg(int fd, const msghdr* message, int flags)
    int shutdown(int fd, int how)
    int getsockopt(int fd, int level, int name, void* value, socklen_t* size)
    enum: SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_NOSIGNAL, SHUT_WR, SHUT_RDWR, AF_UNIX, AF_INET, AF_INET6, SOL_SOCKET, SO_ERROR

cdef extern from "netinet/in.h" nogil:
    cdef struct in_addr:
        uint32_t s_addr
    cdef struct in6_addr:
        uint8_t s6_addr[16]
    cdef struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    cdef struct sockaddr_in6:
        uint16_t sin6_port
        in6_addr sin6_addr
    uint16_t ntohs(uint16_t value)

cdef extern from "arpa/inet.h" nogil:
    const char* inet_ntop(int family, const void* source, char* out, socklen_t size)
    int inet_pton(int family, const char* text, void* out)

cdef extern from "sys/mman.h" nogil:
    void* mmap(void* address, size_t size, int protection, int flags, int fd, long offset)
    int munmap(void* address, size_t size)
    int madvise(void* address, size_t size, int advice)
    enum: PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MADV_DONTNEED
    void* MAP_FAILED

cdef extern from "sys/ioctl.h" nogil:
    int ioctl(int fd, unsigned long request, ...)
    enum: FIONREAD, TIOCOUTQ

cdef extern from "sys/resource.h" nogil:
    cdef struct rlimit:
        unsigned long rlim_cur
        unsigned long rlim_max
    int getrlimit(int resource, rlimit* limit)
    enum: RLIMIT_NOFILE

cdef extern from "unistd.h" nogil:
    int os_close "close"(int fd)

cdef extern from "time.h" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* out)
    enum: CLOCK_MONOTONIC

cdef inline int64_t clock_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec

cdef inline uint32_t clock_ms() noexcept nogil:
    """Milliseconds that wrap after 49 days: only differences mean anything."""
    return <uint32_t>(clock_ns() // 1000000)

cdef extern from *:
    """
    #if defined(__GLIBC__)
    #include <malloc.h>
    static inline void uws_give_back(void) { malloc_trim(0); }
    #else
    static inline void uws_give_back(void) {}
    #endif
    """
    void uws_give_back() nogil

cdef extern from "pthread.h" nogil:
    unsigned long this_thread "(unsigned long)pthread_self" ()

cdef extern from "Python.h":
    ctypedef PyObject* (*vectorcallfunc)(PyObject* callable, PyObject** arguments, size_t count, PyObject* names)
    vectorcallfunc PyVectorcall_Function(object callable)
    PyObject* PyObject_Vectorcall(PyObject* callable, PyObject** arguments, size_t count, PyObject* names)
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
