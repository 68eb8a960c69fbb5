"""A Bookinfo caller on gRPC's C-core.

    client.py TARGET [--mtls] [--authority NAME]

TARGET is `xds:///reviews:9080` (configured by GRPC_XDS_BOOTSTRAP) or a plain `host:port`. Each line of
standard input, `call COUNT [header=value ...]`, is answered with one line of JSON: how many answers each
replica gave, and how many calls failed with what.
"""

import argparse
import collections
import json
import sys

import grpc
import grpc.experimental

import bookinfo_pb2
import bookinfo_pb2_grpc


def connect(args):
    options = [("grpc.default_authority", args.authority)] if args.authority else []
    if args.mtls:
        fallback = grpc.experimental.insecure_channel_credentials()
        credentials = grpc.xds_channel_credentials(fallback)
        return grpc.secure_channel(args.target, credentials, options)
    return grpc.insecure_channel(args.target, options)


def tally(stub, count, metadata):
    answers, errors = collections.Counter(), collections.Counter()
    for _ in range(count):
        try:
            reply = stub.GetReviews(bookinfo_pb2.ProductRequest(product="0"), metadata=metadata, timeout=10)
            answers[reply.origin.instance] += 1
        except grpc.RpcError as error:
            errors[f"{error.code().name}: {error.details()}"] += 1
    return {"answers": answers, "errors": errors}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--mtls", action="store_true")
    parser.add_argument("--authority")
    args = parser.parse_args()
    stub = bookinfo_pb2_grpc.ReviewsStub(connect(args))
    print("ready", flush=True)
    for line in sys.stdin:
        _, count, *headers = line.split()
        metadata = [tuple(header.split("=", 1)) for header in headers]
        print(json.dumps(tally(stub, int(count), metadata)), flush=True)


main()
