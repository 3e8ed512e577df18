/* fl_wake: an eventfd used as a doorbell. Any thread may signal; the sleeper polls the descriptor for reading.
 * Signals given before the bell is cleared count as one. */
#ifndef FL_WAKE_H
#define FL_WAKE_H

/* A new non-blocking, close-on-exec eventfd with nothing signalled. The descriptor (close() it), or -errno. */
int fl_wake_create(void);

/* Rings: the descriptor becomes readable. 0 (also when it already was), or -errno. Never blocks; retries on EINTR. */
int fl_wake_signal(int fd);

/* Takes every signal given so far. 1: there was one; 0: there was none; or -errno. Never blocks; retries on EINTR. */
int fl_wake_clear(int fd);

#endif
