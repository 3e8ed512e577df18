# Workers that help others: they take tasks that lie behind what another one has in hand.

cdef class Helping(Placement):
    """Executors only: a function's environments have what is theirs, or what `Stacking` gives to others."""

    cdef int _steal(self, Environment thief) except -1:
        """An environment without work takes tasks that another one holds and has not begun."""
        cdef Environment environment, victim = None
        cdef Call invocation
        cdef int slot, wanted
        for item in thief.target.environments:
            environment = <Environment>item
            if environment is not thief and environment.state == ENVIRONMENT_BUSY and environment.outstanding > 1:
                if victim is None or environment.outstanding > victim.outstanding:
                    victim = environment
        if victim is None:
            return 0
        wanted = victim.outstanding // 2
        for slot in range(len(victim.held)):
            if wanted == 0 or thief.used_up():
                break
            if victim.held[slot] is None:
                continue
            invocation = <Call>victim.held[slot]
            if self._take_back(victim, invocation):
                self.stolen += 1
                wanted -= 1
                self._post(thief, invocation)
        self._start_helper(thief.target)
        return 0

    cdef int _start_helper(self, Target target) except -1:
        """Where tasks lie behind others, which may be long: while the bounds allow, one more environment comes and takes of them."""
        cdef Environment environment
        if (target.starting or not self._may_start(target) or self.live >= self.environments_max
                or target.retired or self.closing):
            return 0
        for item in target.environments:
            environment = <Environment>item
            if environment.state == ENVIRONMENT_BUSY and environment.outstanding > 1:
                self._start(target, None)
                break
        return 0
