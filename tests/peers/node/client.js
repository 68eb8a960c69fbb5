// A Bookinfo caller on grpc-js with its xDS plug-in.
//
//     node client.js PROTO TARGET [--mtls]
//
// Each line of standard input, `call COUNT [header=value ...]`, is answered with one line of JSON: how
// many answers each replica gave, and how many calls failed with what.
'use strict';

const readline = require('readline');
const grpc = require('@grpc/grpc-js');
const xds = require('@grpc/grpc-js-xds');
const loader = require('@grpc/proto-loader');

xds.register();

const [proto, target, ...flags] = process.argv.slice(2);
const { bookinfo } = grpc.loadPackageDefinition(loader.loadSync(proto));
let credentials = grpc.credentials.createInsecure();
if (flags.includes('--mtls')) {
  credentials = new xds.XdsChannelCredentials(credentials);
}
const client = new bookinfo.v1.Reviews(target, credentials);

function call(metadata) {
  return new Promise((resolve) => {
    const deadline = Date.now() + 10000;
    client.GetReviews({ product: '0' }, metadata, { deadline }, (error, reply) => {
      resolve(error ? { error: `${grpc.status[error.code]}: ${error.details}` } : { answer: reply.origin.instance });
    });
  });
}

async function main() {
  console.log('ready');
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [, count, ...headers] = line.split(' ');
    const metadata = new grpc.Metadata();
    for (const header of headers) {
      const [key, value] = header.split('=');
      metadata.set(key, value);
    }
    const tally = { answers: {}, errors: {} };
    for (let i = 0; i < Number(count); i++) {
      const { answer, error } = await call(metadata);
      const counts = error ? tally.errors : tally.answers;
      const key = error || answer;
      counts[key] = (counts[key] || 0) + 1;
    }
    console.log(JSON.stringify(tally));
  }
  process.exit(0);
}

main();
