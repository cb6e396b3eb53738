"""Live connections on their way from one worker to another, over a socket between the two.

`leaving.py` is the side that gives, `arriving.py` the side that takes, `link.py` the socket between them, `spoken.py` says whether
they can. They stand below the worker and know engines only by their contract.

The giver gives in batches: descriptors by SCM_RIGHTS, their rows (`engine.moved`) and the app's own state beside them. Each
batch is acknowledged, and that is the commit point: before it the giver can go on with them as if nothing had been (the other
one died), after it they are the taker's. The taker acknowledges before it touches them, and lets go of them where it cannot,
so no connection is served twice. It says how many it has room for, and is given no more.

Either everything moves, and the giver ends then (a reload: both are one worker to the app meanwhile), or some of it, between
two workers that go on serving.

    W    everything will come            S    some will
    R n  there is room for so many: the answer to that
    B    a batch: a memfd with its rows, then the connections' descriptors
    A n  the batch is taken over, and there is room for so many more
    L    luggage that follows: what the app has said to connections of the last batch while it was on its way
    P    a publication to everybody: a memfd with it
    E    no more connections come; after S the taker says so too, when it has all of them, and the link ends

A connection on its way belongs to its giver until it is acknowledged: what the app says to it there follows it (`engine.said`),
a broadcast among it. So where some move, a broadcast is for those whom the worker has at that moment.

Where everything moves, it is for those on both sides: what one side publishes the other repeats, each for those it has. The
giver says how many batches had been acknowledged, since the next one has it already; and with a batch it says what it
had heard of the taker's publications, who delivers the rest.
"""
