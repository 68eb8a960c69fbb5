// A grpc-js client that serves its client status (CSDS, gRFC A40), for ../python/recorded_verdicts.py.
//
//     node verdicts.js NAME ...
//
// It opens a channel to `xds:///NAME` for each, and writes the port of its status. It is ended from outside.
'use strict';

const grpc = require('@grpc/grpc-js');
const xds = require('@grpc/grpc-js-xds');

xds.register();
// Some routes that it accepts it throws at when it uses them; what is asked for here is what it accepts.
process.on('uncaughtException', (error) => console.error(error.message));

const channels = process.argv
  .slice(2)
  .map((name) => new grpc.Channel(`xds:///${name}`, grpc.credentials.createInsecure(), {}));
const server = new grpc.Server();
grpc.addAdminServicesToServer(server);
server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) {
    throw error;
  }
  channels.forEach((channel) => channel.getConnectivityState(true));
  console.log(port);
});
