"""What Ray Serve reads from the environment of each of its processes: ``env $(python -m serve.environment) serve run``.

It takes these when it is imported, so they have to be there before `ray start`, `serve run` or a benchmark begins.
Without them the service answers the same, with more of the processor's time for each request.
"""

FAST = {
    # Calls between proxy, ingress and models by gRPC instead of as Ray tasks, and each process on one event loop.
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # Which leaves the proxy out of it, unless told.
    "RAY_SERVE_PROXY_USE_GRPC": "1",
    # Of such a call; left alone, 4 MiB, and a larger image, or many pictures in an answer, would not come through.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str((1 << 31) - 1),
    # A port of its own for each replica, which only HAProxy makes use of: RAY_SERVE_ENABLE_HA_PROXY opens them anyway.
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
    # Else what a replica writes, a line of JSON a request, goes to Serve's own log, a look at the call stack with it.
    "RAY_SERVE_LOG_TO_STDERR": "1",
}
"""The variables and their values."""

if __name__ == "__main__":
    print(*(f"{name}={value}" for name, value in FAST.items()))
