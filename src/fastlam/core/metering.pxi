# What the kernel says of an environment's memory, beside the peak that it keeps.

cdef enum:
    CACHE_LEAST_BYTES = 1 << 20   # less page cache than that is not looked for
    STAT_CHARS_MAX = 8192


cdef int read_file(const char *path, char *text, size_t size) noexcept:
    """Its beginning, as a C string; 0 if it cannot be read."""
    cdef int fd = open_file(path, O_RDONLY | O_CLOEXEC)
    cdef ssize_t got
    if fd < 0:
        return 0
    got = pread(fd, text, size - 1, 0)
    close(fd)
    if got <= 0:
        return 0
    text[got] = 0
    return 1


cdef int64_t number_after(const char *text, const char *name) noexcept:
    """The number behind the name; 0 if it is not there."""
    cdef const char *found = strstr(text, name)
    return 0 if found == NULL else <int64_t>strtoll(found + strlen(name), NULL, 10)


cdef int64_t disk_bytes(int pid) noexcept:
    """What a process, and the children that it has waited for, have had read from disks and written to them; 0 if nobody says."""
    cdef char text[512]
    cdef char path[64]
    snprintf(path, sizeof(path), "/proc/%d/io", pid)
    if pid <= 0 or not read_file(path, text, sizeof(text)):
        return 0
    return number_after(text, "\nread_bytes: ") + number_after(text, "\nwrite_bytes: ")


cdef void read_memory_stat(const char *path, int64_t *cache_bytes, int64_t *kept_bytes) noexcept:
    """Of a control group: page cache that no process has mapped, and what else its processes have, kernel memory left out; 0 and 0 if
    nobody says. Version 1 and version 2 have names of their own for most of it."""
    cdef char text[STAT_CHARS_MAX]
    cdef int64_t files, mapped, anonymous, shared
    cache_bytes[0] = kept_bytes[0] = 0
    text[0] = 10   # a line's name is looked for behind the end of another
    if not read_file(path, text + 1, sizeof(text) - 1):
        return
    files = number_after(text, "\ninactive_file ") + number_after(text, "\nactive_file ")
    mapped = number_after(text, "\nmapped_file ") + number_after(text, "\nfile_mapped ")
    anonymous = number_after(text, "\nrss ") + number_after(text, "\nanon ")
    shared = number_after(text, "\nshmem ")
    cache_bytes[0] = max(files - mapped, 0)
    kept_bytes[0] = anonymous + shared + min(mapped, files)
