"""The load generator, `unlimitedws bench`: many clients of any WebSocket server, in processes that this one starts and watches.

    options, target, plan     what is asked for, of whom, and how it is spread over processes and addresses
    secure                    TLS of wss:// servers
    answer, board, swarm      compiled: what servers answer, what is counted, the loop over connections
    process, crew             a load process, all of them
    modes, run                what is done, in order
    server, kernel            memory and CPU, read meanwhile
    listeners                 whether that is the server's
    report, fields, latency   the outcome, as JSON
    limit                     who was at his limit
    table, comparison, plot   ... for people

It needs its compiled modules: nothing slower could keep a native server busy."""
