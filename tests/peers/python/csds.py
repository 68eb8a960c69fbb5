"""Asks for client status (gRFC A40), as grpcdebug does, once.

    csds.py PORT

Prints one line of JSON: each client's node and, of each resource, type, name, version, status, error, and whether
the resource itself is told.
"""

import json
import sys

import grpc

from envoy.admin.v3 import config_dump_shared_pb2
from envoy.service.status.v3 import csds_pb2, csds_pb2_grpc


def resource(config):
    return {
        "type": config.type_url.rsplit(".", 1)[-1],
        "name": config.name,
        "version": config.version_info,
        "status": config_dump_shared_pb2.ClientResourceStatus.Name(config.client_status),
        "sync": csds_pb2.ConfigStatus.Name(config.config_status),
        "error": config.error_state.details,
        "told": config.HasField("xds_config"),
    }


def main():
    with grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}") as channel:
        stub = csds_pb2_grpc.ClientStatusDiscoveryServiceStub(channel)
        reply = stub.FetchClientStatus(csds_pb2.ClientStatusRequest(), timeout=10, wait_for_ready=True)
    clients = [
        {"node": config.node.id, "resources": [resource(one) for one in config.generic_xds_configs]}
        for config in reply.config
    ]
    print(json.dumps(clients))


main()
