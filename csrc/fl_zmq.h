/* fl_zmq: the libzmq that the pyzmq wheel carries, called without zmq.h and without linking to it.
 *
 * Python imports pyzmq first; fl_zmq_load then finds the symbols by walking the libraries that pyzmq's extension module depends
 * on, so that there is one libzmq in the process. The table is written once, by the loading thread, before any other use.
 * Every socket is used by one thread at a time (libzmq's own rule); the callers say which.
 */
#ifndef FL_ZMQ_H
#define FL_ZMQ_H

#include <stddef.h>

/* Same size and alignment as zmq_msg_t in libzmq 4.x. */
typedef struct fl_zmq_msg {
    _Alignas(void *) unsigned char opaque[64];
} fl_zmq_msg;

enum { FL_ZMQ_DONTWAIT = 1 };

typedef struct fl_zmq_api {
    int (*msg_init)(fl_zmq_msg *);
    int (*msg_init_size)(fl_zmq_msg *, size_t);
    int (*msg_send)(fl_zmq_msg *, void *socket, int flags);
    int (*msg_recv)(fl_zmq_msg *, void *socket, int flags);
    int (*msg_close)(fl_zmq_msg *);
    int (*msg_more)(const fl_zmq_msg *);
    void *(*msg_data)(fl_zmq_msg *);
    size_t (*msg_size)(const fl_zmq_msg *);
    int (*error)(void);
    void (*version)(int *major, int *minor, int *patch);
} fl_zmq_api;

extern fl_zmq_api fl_zmq;

/* Fills the table from the shared object at `module_path`, which must be loaded already.
 * 0: native calls may be used. -1: not reachable (another build of pyzmq, or a libzmq that is not 4.x); use pyzmq's own calls. */
int fl_zmq_load(const char *module_path);

#endif
