# Which environments are idle: everything here takes the same time whether there are ten of them or ten thousand.

cdef class IdleEnvironments(Lanes):
    """Two lines through the idle environments: each target's own, the one used last on top, and one of them all, oldest first: from that
    they are stopped, so those made ahead (provisioned.pxi) are not in it."""

    @cython.final
    cdef inline void _idle_add(self, Environment environment) noexcept:
        """It has just become idle."""
        cdef Target target = environment.target
        self._idle_remove(environment)
        environment.idle_below = target.idle_top
        if target.idle_top is not None:
            target.idle_top.idle_above = environment
        target.idle_top = environment
        target.idle_count += 1
        environment.lined_up = True
        if target.provisioned:
            return
        environment.idle_older = self.idle_newest
        if self.idle_newest is not None:
            self.idle_newest.idle_newer = environment
        else:
            self.idle_oldest = environment
        self.idle_newest = environment

    @cython.final
    cdef inline void _idle_remove(self, Environment environment) noexcept:
        """It is not idle any more; nothing happens if it was not."""
        cdef Target target = environment.target
        if not environment.lined_up:
            return
        environment.lined_up = False
        if environment.idle_above is not None:
            environment.idle_above.idle_below = environment.idle_below
        else:
            target.idle_top = environment.idle_below
        if environment.idle_below is not None:
            environment.idle_below.idle_above = environment.idle_above
        target.idle_count -= 1
        if target.provisioned:
            environment.idle_above = environment.idle_below = None
            return
        if environment.idle_newer is not None:
            environment.idle_newer.idle_older = environment.idle_older
        else:
            self.idle_newest = environment.idle_older
        if environment.idle_older is not None:
            environment.idle_older.idle_newer = environment.idle_newer
        else:
            self.idle_oldest = environment.idle_newer
        environment.idle_above = environment.idle_below = environment.idle_older = environment.idle_newer = None

    @cython.final
    cdef inline Environment _idle_take(self, Target target):
        """The target's environment that was used last, which is then not idle any more; there is one."""
        cdef Environment environment = target.idle_top
        self._idle_remove(environment)
        if environment.frozen:
            environment.frozen = False
            self.launcher.thaw(environment)
        return environment

    # -- freezing --------------------------------------------------------------------------------

    cdef int _freeze_idle(self) except -1:
        """Has those stand still that have become idle and are so yet: their callers have their answers by now."""
        cdef Environment environment
        cdef list freezing = self.freezing
        self.freezing = []
        for item in freezing:
            environment = <Environment>item
            if environment.lined_up and not environment.frozen:
                environment.frozen = self.launcher.freeze(environment)
        return 0
