"""Records what other implementations of gRPC send over a life, for mesh-xds/src/server/recorded.rs: the bytes of every
DiscoveryRequest and of the first load reports.

    GRPC_XDS_BOOTSTRAP is set for the clients; PYTHONPATH has bookinfo_pb2, NODE_PATH grpc-js-xds.
    python recorded_life.py DIRECTORY PROTO

A client of each kind calls `xds:///reviews:9080`. It is given routes to cluster a, then to a and b; a version of b that
is not supported, and a good one; routes to b alone; no listener, and it again. Then its stream ends, and it connects
again. See ../README.md.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

from recording import Recorder, cluster, endpoints, listener, resources, routes

OUT, PROTO = pathlib.Path(sys.argv[1]), sys.argv[2]
HERE = pathlib.Path(__file__).parent
HOST = "reviews:9080"
CLIENTS = {
    "c-core": [sys.executable, HERE / "client.py", f"xds:///{HOST}"],
    "grpc-js": ["node", HERE / "../node/client.js", PROTO, f"xds:///{HOST}"],
}


class Process:
    def __init__(self, command, **environment):
        environment = os.environ | environment
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.ask("ready")

    def ask(self, awaited, line=None):
        if line:
            print(line, file=self.process.stdin, flush=True)
        for answer in self.process.stdout:
            if answer.startswith(awaited):
                return answer
        raise SystemExit(f"{self.process.args} ended and did not say {awaited!r}")

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def life(command, port, bootstrap):
    """The lines of one client's life. A replica of `reviews` is at that port."""
    recorder = Recorder()
    node = {"id": "recorded", "cluster": "tests", "locality": {"region": "here"}, "metadata": {"key": "value"}}
    server = {"server_uri": f"127.0.0.1:{recorder.port}", "channel_creds": [{"type": "insecure"}]}
    bootstrap.write_text(json.dumps({"xds_servers": [server | {"server_features": ["xds_v3"]}], "node": node}))
    top = listener(HOST, "routes")
    ends = [endpoints("a-endpoints", port), endpoints("b-endpoints", port)]
    a, b = cluster("a", "a-endpoints"), cluster("b", "b-endpoints")
    unsupported = cluster("b", "b-endpoints", kind="ORIGINAL_DST")
    changed = cluster("b", "b-endpoints", timeout="2s")
    recorder.serve(resources(top, routes("routes", "a"), a, b, *ends))
    client = Process(command, GRPC_XDS_BOOTSTRAP=str(bootstrap))

    def calls():
        answer = client.ask("{", "call 5")
        recorder.settle()
        return answer

    print(command[0], calls(), end="")
    for step in (
        [top, routes("routes", "a", "b"), a, b, *ends],
        [top, routes("routes", "a", "b"), a, unsupported, *ends],
        [top, routes("routes", "a", "b"), a, changed, *ends],
        [top, routes("routes", "b"), a, changed, *ends],
        [routes("routes", "b"), a, changed, *ends],
        [top, routes("routes", "b"), a, changed, *ends],
    ):
        recorder.serve(resources(*step))
        recorder.settle()
        print(command[0], calls(), end="")
    recorder.disconnect()
    print(command[0], calls(), end="")
    client.end()
    recorder.server.stop(None)
    return recorder.lines


def main():
    with tempfile.TemporaryDirectory() as scratch:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = Process([sys.executable, HERE / "server.py", str(port), "--instance", "a", "--plain"])
        for name, command in CLIENTS.items():
            lines = life(command, port, pathlib.Path(scratch, "bootstrap.json"))
            (OUT / f"{name}.txt").write_text("".join(line + "\n" for line in lines))
        server.end()


main()
