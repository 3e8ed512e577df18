#define _GNU_SOURCE
#include "fl_zmq.h"

#include <dlfcn.h>
#include <string.h>

fl_zmq_api fl_zmq;

int fl_zmq_load(const char *module_path) {
    static const char *const names[] = {
        "zmq_msg_init", "zmq_msg_init_size", "zmq_msg_send", "zmq_msg_recv", "zmq_msg_close",
        "zmq_msg_more", "zmq_msg_data",      "zmq_msg_size", "zmq_errno",    "zmq_version",
    };
    enum { COUNT = sizeof names / sizeof names[0] };
    void *symbols[COUNT];
    _Static_assert(sizeof symbols == sizeof(fl_zmq_api), "one name for each member of fl_zmq_api, in its order");

    void *library = dlopen(module_path, RTLD_NOW | RTLD_NOLOAD);
    if (library == NULL) {
        return -1;
    }
    for (int i = 0; i < COUNT; i++) {
        symbols[i] = dlsym(library, names[i]);
        if (symbols[i] == NULL) {
            return -1;
        }
    }
    fl_zmq_api api;
    memcpy(&api, symbols, sizeof api);
    int major = 0, minor = 0, patch = 0;
    api.version(&major, &minor, &patch);
    if (major != 4) {
        return -1;
    }
    fl_zmq = api;
    return 0;
}
