"""Asks gRPC's C-core and grpc-js what they make of the resources in mesh-xds/src/resource/tests/recorded, for that
directory's verdicts.rs: their own client status (CSDS, gRFC A40), as they serve it.

    NODE_PATH has grpc-js-xds.
    python recorded_verdicts.py MESH_XDS DIRECTORY

Of MESH_XDS, the directory of the crate, the tables in src/resource/tests are read for the type of each file. Each
resource is served under the name of its file, which is appended to its bytes (the last name of a message counts), to a
client that is led to it by a listener, routes and a cluster of that name. See ../README.md.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import grpc
from grpc_csds import ClientStatusDiscoveryServiceServicer

from envoy.admin.v3 import config_dump_shared_pb2
from envoy.service.status.v3 import csds_pb2, csds_pb2_grpc
from recording import URLS, Recorder, cluster, listener, resources, routes

CRATE, OUT = map(pathlib.Path, sys.argv[1:])
TESTS = CRATE / "src/resource/tests"
# Without a name a resource is no resource of anybody; these are about that.
NAMELESS = "bad-truncated bad-name-not-utf8 bad-wire-type bad-group bad-length bad-no-name".split()
PROVIDERS = "default client-side-certificate-provider-instance server-side-certificate-provider-instance".split()
PATIENCE = 60
# Resources that are asked for at once.
AT_ONCE = 12


def cases():
    """Type by name of file."""
    text = (TESTS / "recorded.rs").read_text() + (TESTS / "envoy.rs").read_text()
    found = re.findall(r'\("([\w-]+)", ([CELR]DS)\b', text)
    return {name: kind for name, kind in found if name not in NAMELESS}


def served(name, kind):
    """The resource of that file, and what leads to it."""
    field = name.encode()
    body = (TESTS / f"recorded/{name}.bin").read_bytes() + b"\x0a" + bytes([len(field)]) + field
    order = ["LDS", "RDS", "CDS", "EDS"]
    to_it = [listener(name, name), routes(name, name), cluster(name, name)][: order.index(kind)]
    return resources(*to_it) | {(kind, name): body}


class CCore:
    """gRPC's C-core, in this process, which has one client for all. It decides on each resource."""

    decided = (config_dump_shared_pb2.ACKED, config_dump_shared_pb2.NACKED)

    def __init__(self, bootstrap):
        os.environ["GRPC_XDS_BOOTSTRAP_CONFIG"] = bootstrap

    def open(self, names):
        self.channels = [grpc.insecure_channel(f"xds:///{name}") for name in names]
        for channel in self.channels:
            channel.subscribe(lambda _: None, try_to_connect=True)

    def status(self):
        return ClientStatusDiscoveryServiceServicer.FetchClientStatus(csds_pb2.ClientStatusRequest(), None)

    def close(self):
        for channel in self.channels:
            channel.close()


class GrpcJs:
    """grpc-js, in processes of its own: it does not always take a listener again that was gone. What it cannot read it
    does not tell of by name, and takes it for absent."""

    decided = CCore.decided + (config_dump_shared_pb2.DOES_NOT_EXIST,)

    def __init__(self, bootstrap):
        self.environment = os.environ | {"GRPC_XDS_BOOTSTRAP_CONFIG": bootstrap}

    def open(self, names):
        script = pathlib.Path(__file__).parent / "../node/verdicts.js"
        command = ["node", script, *names]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment)
        channel = grpc.insecure_channel(f"127.0.0.1:{int(self.process.stdout.readline())}")
        self.stub = csds_pb2_grpc.ClientStatusDiscoveryServiceStub(channel)

    def status(self):
        return self.stub.FetchClientStatus(csds_pb2.ClientStatusRequest(), wait_for_ready=True, timeout=PATIENCE)

    def close(self):
        self.process.kill()
        self.process.wait()


def main():
    with tempfile.TemporaryDirectory() as scratch:
        files = ("certificate_file", "private_key_file", "ca_certificate_file")
        # grpc-js wants a locality and an interval, which others do without.
        config = {file: f"{scratch}/{file}" for file in files} | {"refresh_interval": "600s"}
        provider = {"plugin_name": "file_watcher", "config": config}
        for kind, file in ((CCore, "c-core"), (GrpcJs, "grpc-js")):
            recorder = Recorder()
            server = {"server_uri": f"127.0.0.1:{recorder.port}", "channel_creds": [{"type": "insecure"}]}
            bootstrap = {
                "xds_servers": [server],
                "node": {"id": "recorded", "locality": {}},
                "certificate_providers": {name: provider for name in PROVIDERS},
            }
            client = kind(json.dumps(bootstrap))
            wanted, answer = cases(), csds_pb2.ClientStatusResponse(config=[csds_pb2.ClientConfig()])
            names = sorted(wanted)
            for start in range(0, len(names), AT_ONCE):
                some = {name: wanted[name] for name in names[start : start + AT_ONCE]}
                answer.config[0].generic_xds_configs.extend(verdicts(recorder, client, some))
            (OUT / f"{file}.bin").write_bytes(answer.SerializeToString(deterministic=True))
    os._exit(0)  # Channels to nowhere are nothing to wait for.


def verdicts(recorder, client, wanted):
    """What a client says of these."""
    recorder.serve({key: body for name, kind in wanted.items() for key, body in served(name, kind).items()})
    client.open(wanted)
    until = time.monotonic() + PATIENCE
    while left := undecided(client, found := status(client, wanted), wanted):
        if time.monotonic() > until:
            client.close()
            print(f"{type(client).__name__} has not decided on {left}", file=sys.stderr, flush=True)
            os._exit(1)
        time.sleep(0.2)
    client.close()
    return found


def status(client, wanted):
    """What a client answers of the files themselves."""
    every = [one for config in client.status().config for one in config.generic_xds_configs]
    # grpc-js leaves out what stands before the `/`.
    message = {name: URLS[kind].split("/")[-1] for name, kind in wanted.items()}
    return sorted(
        (one for one in every if one.type_url.split("/")[-1] == message.get(one.name)), key=lambda one: one.name
    )


def undecided(client, found, wanted):
    return wanted.keys() - {one.name for one in found if one.client_status in client.decided}


main()
