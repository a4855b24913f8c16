// Package composition tests usher beside the middlewares of others on each router:
// compressors, recoverers, request IDs, timeouts, CORS, logging and tracing, each outside
// and inside of the whole stack. Each response must be the one without the
// middleware, or differ as it is declared to.
package composition
