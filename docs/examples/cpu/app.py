"""Work for the processor: counts prime numbers with a sieve."""


def handler(event, context):
    limit = event["limit"]
    sieve = bytearray([1]) * limit
    sieve[:2] = bytes(min(2, limit))
    for number in range(2, int(limit**0.5) + 1):
        if sieve[number]:
            multiples = range(number * number, limit, number)
            sieve[multiples.start :: number] = bytes(len(multiples))
    return {"limit": limit, "primes": sum(sieve), "milliseconds_left": context.get_remaining_time_in_millis()}
