# The sockets beneath the lanes: our own end of ZMTP over a connected unix socket, or libzmq's through pyzmq.

cdef class Connections(Driver):
    """Sends and receives whole messages. A lane whose worker has gone takes everything and keeps nothing: what was posted still stands in
    the slot table as not begun, and the exit that follows hands it to another environment."""

    cdef int _send(self, Environment environment, bytes header, object payload) except -1:
        """Posts one frame; `payload` is bytes or a list of buffers that belong to one another."""
        cdef uint8_t[SHORT_BYTES_MAX] short
        cdef uint8_t[FL_ZMTP_HEADER_BYTES_MAX + LENGTH_BYTES] head
        cdef uint8_t *end
        cdef uint32_t header_bytes = <uint32_t>PyBytes_GET_SIZE(header)
        cdef size_t total = LENGTH_BYTES + header_bytes, start
        cdef iovec part
        cdef ssize_t sent
        cdef bint short_enough = not environment.backlog
        if environment.socket is not None:
            return self._send_by_libzmq(environment, header, payload)
        if environment.lane_fd < 0 or environment.lane_closed_ns:
            return 0
        if type(payload) is bytes:
            payload = (payload,)   # a tuple of one comes from the interpreter's stock
        for buffer in payload:
            if type(buffer) is bytes:
                total += PyBytes_GET_SIZE(buffer)
            else:
                total += <size_t>buffer.nbytes
                short_enough = False
        if short_enough and FL_ZMTP_HEADER_BYTES_MAX + total <= SHORT_BYTES_MAX:
            # The usual case: everything in one piece on the stack, one system call.
            start = fl_zmtp_header(short, total)
            memcpy(short + start, &header_bytes, LENGTH_BYTES)
            memcpy(short + start + LENGTH_BYTES, PyBytes_AS_STRING(header), header_bytes)
            end = short + start + LENGTH_BYTES + header_bytes
            for buffer in payload:
                memcpy(end, PyBytes_AS_STRING(buffer), PyBytes_GET_SIZE(buffer))
                end += PyBytes_GET_SIZE(buffer)
            part.iov_base = short
            part.iov_len = start + total
            sent = fl_zmtp_write(&environment.connection, &part, 1)
            if sent < 0:
                self._takes_no_more(environment)
            elif <size_t>sent < part.iov_len:
                environment.backlog.append(memoryview(PyBytes_FromStringAndSize(<char *>short + sent, part.iov_len - sent)))
                self._watch_writable(environment, True)
            return 0
        start = fl_zmtp_header(head, total)
        memcpy(head + start, &header_bytes, LENGTH_BYTES)
        clear = not environment.backlog
        environment.backlog.append(memoryview(PyBytes_FromStringAndSize(<char *>head, start + LENGTH_BYTES) + header))
        environment.backlog.extend([memoryview(buffer).cast("B") for buffer in payload if len(buffer)])
        if clear:
            self._write_backlog(environment)
        return 0

    cdef int _write_backlog(self, Environment environment) except -1:
        """Writes what the socket takes; watches it for more room as long as something is left."""
        cdef iovec[BACKLOG_PARTS_MAX] parts
        cdef const uint8_t[::1] view
        cdef size_t wanted, left
        cdef ssize_t sent
        cdef int count
        backlog = environment.backlog
        while backlog and not environment.lane_closed_ns:
            count = 0
            wanted = 0
            for item in backlog:
                if count == BACKLOG_PARTS_MAX:
                    break
                view = item
                parts[count].iov_base = <void *>&view[0]
                parts[count].iov_len = view.shape[0]
                wanted += view.shape[0]
                count += 1
            sent = fl_zmtp_write(&environment.connection, parts, count)
            if sent < 0:
                self._takes_no_more(environment)
                return 0
            left = <size_t>sent
            while backlog and left >= <size_t>backlog[0].nbytes:
                left -= <size_t>backlog[0].nbytes
                backlog.popleft()
            if left:
                backlog[0] = backlog[0][left:]
            if <size_t>sent < wanted:
                break
        self._watch_writable(environment, bool(backlog))
        return 0

    cdef int _watch_writable(self, Environment environment, bint wanted) except -1:
        if wanted == environment.writable_watched or environment.lane_closed_ns:
            return 0
        environment.writable_watched = wanted
        return self._watch_lane(environment)

    cdef int _watch_lane(self, Environment environment) except -1:
        """Tells epoll what is wanted of a lane; the end of its other side is told in any case."""
        cdef epoll_event event
        event.events = 0
        if not environment.paused:
            event.events |= EPOLLIN
        if environment.writable_watched:
            event.events |= EPOLLOUT
        event.data.u64 = <uint64_t>EVENT_ENVIRONMENT + environment.id
        if epoll_ctl(self.epoll_fd, EPOLL_CTL_MOD, environment.lane_fd, &event) != 0:
            raise OSError(errno, f"epoll_ctl: {os.strerror(errno)}")
        return 0

    cdef int _pause(self, Environment environment) except -1:
        """Reads nothing more from a lane, until `_go_on`: what its worker goes on sending fills the socket, and then the worker waits."""
        if environment.paused or environment.draining or environment.lane_fd < 0:
            return 0
        if environment.lane_at_end:
            environment.paused = environment.has_express   # its ring goes on without the connection
            return 0
        environment.paused = True
        return self._watch_lane(environment)

    cdef int _go_on(self, Environment environment) except -1:
        """Reads a lane again, first what had been read and not been looked at."""
        if not environment.paused:
            return 0
        environment.paused = False
        if environment.lane_fd >= 0 and not environment.lane_at_end:
            self._watch_lane(environment)
        return self._recheck(environment)

    cdef int _peer_gone(self, Environment environment) except -1:
        """The other end of a lane that is not read has been closed. What lies in the socket is all there will be; a ring waits on."""
        if environment.has_express:
            return self._lane_closed(environment)
        return self._go_on(environment)

    cdef int _takes_no_more(self, Environment environment) except -1:
        """Nothing can be sent any more. What has been sent from there, an answer perhaps, still lies in the socket and is read."""
        if environment.lane_closed_ns == 0:
            environment.backlog.clear()
            self._watch_writable(environment, False)
            environment.lane_closed_ns = self._now()
        return 0

    cdef int _lane_closed(self, Environment environment) except -1:
        """Nothing comes or goes any more. An exit explains it in a moment; an environment that only closed its lane is ended by
        `_check_lane` if it has a call, and here if it has none."""
        if environment.lane_at_end:
            return 0
        environment.lane_at_end = True
        environment.backlog.clear()
        self._remove_event(environment.lane_fd)
        if environment.lane_closed_ns == 0:
            environment.lane_closed_ns = self._now()
        if environment.state == ENVIRONMENT_IDLE:
            self._stop(environment)
        return 0

    cdef bint _receive(self, Environment environment) except -1:
        """Takes the frames that have arrived, one read's worth of them; True if there was one."""
        cdef bint any
        cdef int64_t got
        if environment.lane_fd < 0 or environment.paused:
            return False
        if environment.socket is not None:
            return self._receive_by_libzmq(environment)
        any = self._take_messages(environment)   # an interrupt may have left some behind
        if environment.lane_fd < 0 or environment.lane_at_end or environment.paused:
            return any
        got = fl_zmtp_fill(&environment.connection)
        if got > 0:
            return self._take_messages(environment) or any
        if got != -EAGAIN and got != -EINTR:
            self._lane_closed(environment)
        return any

    cdef bint _take_messages(self, Environment environment) except -1:
        cdef const uint8_t *data = NULL
        cdef bint any = False
        cdef int64_t size
        while environment.lane_fd >= 0 and not environment.paused:
            size = fl_zmtp_next(&environment.connection, &data)
            if size < 0:
                if size != -EAGAIN and not environment.lane_at_end:
                    self._bad_frame(environment, self._refusal(<int>size))
                    self._lane_closed(environment)
                break
            any = True
            if environment.has_express:
                if not environment.by_socket_due:
                    self._bad_frame(environment, "a message that no record of its ring tells of")
                    self._lane_closed(environment)
                    break
                environment.by_socket_due = False
                self._frame(environment, data, <size_t>size)
                break   # the ring tells what is next
            self._frame(environment, data, <size_t>size)
        return any

    cdef str _refusal(self, int rc):
        if rc == -EMSGSIZE:
            return "a message over the limit"
        if rc == -EPROTO:
            return "neither a multipart message nor anything else but single messages of ZMTP 3 is a frame"
        return os.strerror(-rc)

    cdef int _drain(self, Environment environment) except -1:
        """Takes everything that has been sent up to now, and no more: a child that a process has left behind may go on writing."""
        self._go_on(environment)
        environment.draining = True
        try:
            self._read_all(environment)
        finally:
            environment.draining = False
        return 0

    cdef int _read_all(self, Environment environment) except -1:
        cdef int64_t left, got
        if environment.socket is not None:
            self._receive(environment)
            return 0
        self._take_messages(environment)
        left = fl_zmtp_unread(&environment.connection)
        while left > 0 and environment.lane_fd >= 0 and not environment.lane_at_end:
            got = fl_zmtp_fill(&environment.connection)
            if got <= 0:
                break
            left -= got
            self._take_messages(environment)
        return 0

    cdef int _check_lane(self, Environment environment) except -1:
        """Ends an environment that has a call and no lane. One that has merely died is given the time to be reported."""
        cdef int events
        if environment.socket is not None:
            # A PAIR socket that cannot send has lost its peer: libzmq says nothing when it cuts one off for a message over the limit.
            events = environment.socket.EVENTS
            if events & ZMQ_POLLOUT:
                if events & ZMQ_POLLIN:
                    self._recheck(environment)   # looking has eaten the edge that would have told of this message
                return 0
            self._receive(environment)
        elif environment.lane_closed_ns == 0 or self._now() - environment.lane_closed_ns < LANE_GRACE_NS:
            return 0
        if environment.state == ENVIRONMENT_BUSY:
            self.bad_frames += 1
            environment.end("the environment has closed its lane")
        return 0

    # -- libzmq ----------------------------------------------------------------------------------

    cdef int _send_by_libzmq(self, Environment environment, bytes header, object payload) except -1:
        cdef uint32_t header_bytes = <uint32_t>PyBytes_GET_SIZE(header)
        try:
            environment.socket.send(
                header_bytes.to_bytes(4, "little") + header + (payload if type(payload) is bytes else b"".join(payload)), 1
            )
        except Exception:   # zmq.Again: there is nobody at the other end
            return 0
        self._recheck(environment)   # ZMQ_FD is edge-triggered, and a send can eat the edge of a message that has arrived meanwhile
        return 0

    cdef bint _receive_by_libzmq(self, Environment environment) except -1:
        cdef bint any = False
        cdef bytes data
        while environment.lane_fd >= 0 and not environment.paused:
            try:
                data = environment.socket.recv(1)
            except Exception:  # zmq.Again, or a closed socket
                break
            any = True
            if environment.socket.RCVMORE:
                self._bad_frame(environment, "a multipart message is not a frame")
            else:
                self._frame(environment, <uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        return any
