/* Processes that tests of shared memory fork, and how these end. */
#ifndef CHILDREN_H
#define CHILDREN_H

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fl_test.h"

/* As fork; the child does not outlive a test that fails or is killed. */
__attribute__((unused)) static pid_t start_child(void)
{
    fflush(stdout); /* or both would write what is in the buffer */
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    return pid;
}

/* Waits for a child that leaves with status 0. */
__attribute__((unused)) static void await_exit(pid_t pid)
{
    int status;
    CHECK_EQUAL(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Waits for a child that is killed, or kills itself, with SIGKILL. */
__attribute__((unused)) static void await_kill(pid_t pid)
{
    int status;
    CHECK_EQUAL(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

#endif
