// Package benchmarks measures usher beside the libraries that a user would pick
// instead, on the same work in the same run.
//
// The table of internal/contest lists the works, the contestants and the targets.
// Each contestant is called through its public API as its own documentation shows,
// with the same request and the same writer in memory, and its response is checked
// before the clock starts. The table also lists what a contestant leaves out.
//
//	go test -run='^$' -bench='^Benchmark[^S]|^BenchmarkStack' -benchmem -benchtime=20ms
//
// Times are comparable within one run only, so every target is a ratio to
// something that was measured beside it. Benchmarks whose names begin with Scale
// show how costs grow; they have no targets. USHER_BENCH_LARGE=1 adds the largest
// of them, which take minutes and several gigabytes.
package benchmarks
