// Package benchmarks measures usher beside what a user would pick instead, on the
// same work in the same run.
//
// The works, those who do them and the targets are the table of internal/contest.
// Each contestant is driven through its public API as its own documentation shows,
// with the same request and the same writer in memory, and its answer is looked at
// before the clock starts. What a contestant leaves out stands in the table.
//
//	go test -run='^$' -bench='^Benchmark[^S]|^BenchmarkStack' -benchmem -benchtime=20ms
//
// Times are comparable within one run only, so every target is a ratio to
// something that was measured beside it. Benchmarks whose names begin with Scale
// show how costs grow; they have no targets. USHER_BENCH_LARGE=1 adds the largest
// of them, which take minutes and several gigabytes.
package benchmarks
