// Package load sends requests to a server and measures how long the responses take.
//
// [Open] keeps a schedule whatever the server does, as independent users would: the
// latency of a request counts from the moment at which it was due, so one that had to
// wait because the server stalled counts that wait. A client that sends the next
// request only after the last response would not notice (coordinated omission).
//
// [Closed] sends as fast as the server responds, which measures its throughput and
// not its latency.
package load
