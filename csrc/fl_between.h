/* A grandchild whose parent is not this process, for the price of one copy of the memory: the child between shares it.
 */
#ifndef FL_BETWEEN_H
#define FL_BETWEEN_H

/* Makes a child that has this process's memory itself, not a copy, while this process waits. It calls `prepare`, and if
 * that returns 0 `before_fork`; then it forks. In its own child, the grandchild, this function calls `in_child` and returns
 * 0, as if that one had been forked by the caller; the child itself calls `in_parent` and ends. `prepare` must leave the
 * memory as whoever called this function expects it: the caller goes on with it. What the child does to itself (user,
 * namespaces, filters) does not concern the caller, and the grandchild inherits it.
 *
 * Returns the child's pid in the caller, who has to reap it, or -errno. Its exit status is 0, or 70 (EX_SOFTWARE) where
 * `prepare` has failed or nothing could be forked. */
int fl_between_fork(int (*prepare)(void *), void *argument, void (*before_fork)(void), void (*in_parent)(void),
                    void (*in_child)(void));

#endif
