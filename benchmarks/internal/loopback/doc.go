// Package loopback measures whole servers over 127.0.0.1, each a process of its own:
// how many requests they serve, what processor time and memory one costs, and how
// long one takes.
//
// Clients and server share the machine. So the number of requests a second says as
// much about the clients, and the processor time of the server per request is what
// compares stacks.
package loopback
