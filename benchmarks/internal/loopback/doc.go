// Package loopback measures whole servers over 127.0.0.1, each a process of its own:
// how many requests they serve, what processor time and memory one costs, and how
// long one takes.
//
// Clients and server share the machine, so the number of requests per second depends
// on the clients as well. Stacks are compared by the processor time of the server per
// request.
package loopback
