/* The protocol of csrc/fl_spsc on the memory of x86: one producer and one consumer, in two processes.
 *
 * Positions count records, and content is the record's number: one that is lost, doubled or taken too early is seen.
 * A store goes into the FIFO buffer of the process that makes it (x86-TSO) and reaches memory at any later time. A fence
 * waits until the buffer is empty; an exchange and a system call do so too. No load here is of a word that the loader
 * itself can have in its buffer, so loads read memory.
 *
 *                 producer                        consumer                       switch
 *     requests    dispatcher                      worker, sleeps on a futex
 *     replies     worker, waits on a futex        dispatcher                     -DREPLIES
 *
 * The dispatcher waits for a bell: an eventfd in an epoll set, edge-triggered. -DDEATH: the worker may die between any
 * two of its steps, which the dispatcher's epoll set tells it (a pidfd).
 *
 * README.md says how it is run, what it shows and what it leaves out. Each MUTANT is a mistake that must be found.
 */

#ifndef RECORDS
#define RECORDS 4
#endif
#ifndef CAPACITY
#define CAPACITY 2 /* records that the ring holds */
#endif
#ifndef BATCH
#define BATCH 2 /* records reserved before they are published, at most */
#endif
#ifndef SPURIOUS
#define SPURIOUS 1 /* wakes for no reason; bounded, so that they cannot hide a lost one */
#endif
#define BUFFER 4 /* stores that a buffer holds; a process that finds it full waits */

#define PRODUCER 0
#define CONSUMER 1
#ifdef REPLIES
#define WORKER PRODUCER
#define DISPATCHER CONSUMER
#else
#define WORKER CONSUMER
#define DISPATCHER PRODUCER
#endif

/* Words of memory. */
#define PUBLISHED 0
#define RELEASED 1
#define ASLEEP 2
#define CROWDED 3
#define DATA 4 /* and the places after it */

byte memory[DATA + CAPACITY];
chan buffer[2] = [BUFFER] of { byte, byte }; /* word, value */

bool futex_sleeper;    /* the worker sleeps in FUTEX_WAIT */
bool bell, edge;       /* the eventfd is readable; epoll has not reported its last write */
bool dying, exited;    /* the worker takes no step any more; its pidfd is readable */
byte spurious = SPURIOUS;
bool all_taken;

#define store(me, word, value) buffer[me]!word, value
#define fence(me) empty(buffer[me])
#define exchange(me, word, old) atomic { empty(buffer[me]) -> old = memory[word]; memory[word] = 0 }

active proctype producer_stores()
{
    byte word, content;
end:
    do
    :: atomic { buffer[PRODUCER]?word, content -> memory[word] = content; word = 0; content = 0 }
    od
}

active proctype consumer_stores()
{
    byte word, content;
end:
    do
    :: atomic { buffer[CONSUMER]?word, content -> memory[word] = content; word = 0; content = 0 }
    od
}

/* ---- the kernel ---------------------------------------------------------------------------------------------------- */

/* The dispatcher waits for its bell. What was written is still there to be read: `clear` reads it. */
inline wait_for_bell()
{
    do
    :: atomic { edge && bell -> edge = 0; break }
    :: atomic { edge && !bell -> edge = 0 } /* read in the meantime: epoll does not report it */
#ifndef MUTANT_DEATH_UNTOLD
    :: exited -> break
#endif
    :: atomic { spurious > 0 -> spurious--; break }
    od
}

inline clear() { atomic { empty(buffer[DISPATCHER]) -> bell = 0 } }

/* The worker sleeps as long as `word` is 1; the kernel compares and goes to sleep in one step. */
inline wait_on_futex(word)
{
    atomic {
        empty(buffer[WORKER]);
        if
#ifndef MUTANT_SLEEP_WITHOUT_COMPARING
        :: memory[word] != 1
#endif
        :: memory[word] == 1 -> futex_sleeper = 1
#ifdef MUTANT_SLEEP_WITHOUT_COMPARING
        :: memory[word] != 1 -> futex_sleeper = 1
#endif
        fi
    }
    do
    :: !futex_sleeper -> break
    :: atomic { futex_sleeper && spurious > 0 -> spurious--; futex_sleeper = 0 }
    od
}

inline wake(me)
{
    if
    :: me == WORKER -> atomic { empty(buffer[me]) -> bell = 1; edge = 1 }
    :: me == DISPATCHER -> atomic { empty(buffer[me]) -> futex_sleeper = 0 }
    fi
}

/* After a change: wakes the other side if it has announced in `word` that it sleeps. */
inline wake_announced(me, word)
{
    value = memory[word];
    if
    :: value == 0
    :: value != 0 ->
#ifdef MUTANT_WAKE_BEFORE_TAKING
        wake(me);
        exchange(me, word, value)
#else
        exchange(me, word, value);
        if
        :: value != 0 -> wake(me)
        :: value == 0
        fi
#endif
    fi;
    value = 0
}

/* ---- producer ------------------------------------------------------------------------------------------------------ */

inline publish()
{
    published = position;
    store(PRODUCER, PUBLISHED, position);
#ifndef MUTANT_NO_FENCE_IN_PUBLISH
    fence(PRODUCER);
#endif
    wake_announced(PRODUCER, ASLEEP)
}

inline sleep_crowded()
{
    seen = peer;
    store(PRODUCER, CROWDED, 1);
#ifndef MUTANT_NO_FENCE_IN_ANNOUNCE_CROWDED
    fence(PRODUCER);
#endif
#ifndef MUTANT_NO_SECOND_LOOK_IN_ANNOUNCE_CROWDED
    peer = memory[RELEASED];
#endif
    if
    :: peer == seen ->
        if
        :: PRODUCER == DISPATCHER ->
#ifdef MUTANT_CLEAR_AFTER_ANNOUNCING
            clear();
            wait_for_bell()
#else
            wait_for_bell();
            clear()
#endif
        :: PRODUCER == WORKER -> wait_on_futex(CROWDED)
        fi
    :: peer != seen -> store(PRODUCER, CROWDED, 0)
    fi;
    seen = 0
}

active proctype producer()
{
    byte position, published, peer, seen, value;
    {
        do
        :: position < RECORDS && position - published < BATCH ->
            if
            :: position - peer == CAPACITY -> peer = memory[RELEASED]
            :: else
            fi;
            if
            :: position - peer < CAPACITY -> /* reserve, and write the record */
                assert(position - memory[RELEASED] < CAPACITY);
#ifdef MUTANT_PUBLISH_BEFORE_WRITING
                store(PRODUCER, PUBLISHED, position + 1);
#endif
                store(PRODUCER, DATA + position % CAPACITY, position + 1);
                position++
#ifndef MUTANT_CROWDED_BEFORE_PUBLISHING
            :: position - peer == CAPACITY && position != published -> publish()
            :: position - peer == CAPACITY && position == published ->
#else
            :: position - peer == CAPACITY ->
#endif
                sleep_crowded();
                if
                :: PRODUCER == DISPATCHER && exited -> goto over
                :: else
                fi
            fi
        :: position != published -> publish()
        :: position == RECORDS && published == RECORDS -> break
        od
    } unless { WORKER == PRODUCER && dying };
over:
    skip
}

/* ---- consumer ------------------------------------------------------------------------------------------------------ */

inline announce_awake()
{
    value = memory[ASLEEP];
    if
    :: value != 0 -> store(CONSUMER, ASLEEP, 0)
    :: value == 0
    fi;
    value = 0
}

inline sleep_empty()
{
    store(CONSUMER, ASLEEP, 1);
#ifndef MUTANT_NO_FENCE_IN_ANNOUNCE_SLEEP
    fence(CONSUMER);
#endif
#ifndef MUTANT_NO_SECOND_LOOK_IN_ANNOUNCE_SLEEP
    value = memory[PUBLISHED];
#else
    value = position;
#endif
    if
    :: value == position ->
        value = 0;
        if
        :: CONSUMER == DISPATCHER ->
#ifdef MUTANT_CLEAR_AFTER_ANNOUNCING
            clear();
            wait_for_bell()
#else
            wait_for_bell();
            clear()
#endif
        :: CONSUMER == WORKER -> wait_on_futex(ASLEEP)
        fi;
        announce_awake()
    :: value != position ->
        value = 0;
        store(CONSUMER, ASLEEP, 0)
    fi
}

inline release()
{
    store(CONSUMER, RELEASED, position);
#ifndef MUTANT_NO_FENCE_IN_RELEASE
    fence(CONSUMER);
#endif
#ifndef MUTANT_RELEASE_WITHOUT_LOOKING
    wake_announced(CONSUMER, CROWDED)
#endif
}

active proctype consumer()
{
    byte position, peer, value;
    bool last;
    {
        do
        :: position == RECORDS -> break
        :: position < RECORDS ->
            if
            :: peer == position ->
                last = CONSUMER == DISPATCHER && exited; /* seen before the look */
                peer = memory[PUBLISHED]
            :: else
            fi;
            if
            :: peer == position && last -> goto over
            :: peer == position && !last /* looks again: as long as it likes */
            :: peer == position && !last -> sleep_empty()
            :: peer != position -> /* take a record, and use it until it is released */
                assert(peer > position && peer <= RECORDS);
                value = memory[DATA + position % CAPACITY];
                assert(value == position + 1);
                value = 0;
#ifdef MUTANT_RELEASE_BEFORE_USING
                position++;
                release();
                assert(memory[DATA + (position - 1) % CAPACITY] == position)
#else
                assert(memory[DATA + position % CAPACITY] == position + 1);
                position++;
                release()
#endif
            fi
        od
    } unless { WORKER == CONSUMER && dying };
over:
    all_taken = position == RECORDS
}

#ifdef DEATH
active proctype death()
{
    if
    :: dying = 1;
        empty(buffer[WORKER]); /* the kernel tells of it when nothing of the process is on its way any more */
        exited = 1
    :: skip
    fi
}
#endif

#ifdef LIVENESS
ltl every_record_is_taken { <> all_taken }
#endif
