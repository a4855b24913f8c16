package contest

import (
	"slices"
	"strconv"
)

// A Scale is one work at growing sizes. It has no targets: it shows how costs
// grow. The result of a contestant has the name
//
//	Benchmark<Layer>/<point>/<contestant>
type Scale struct {
	// Layer is the name of the benchmark, without "Benchmark". It begins with Scale.
	Layer string
	// About describes the work, and Axis what grows.
	About, Axis string
	// Points are the sizes. Those from Large on are measured only if the environment
	// variable USHER_BENCH_LARGE is 1; 0 means that there is none.
	Points []int
	Large  int
	// Contestants are in the order of a report. A base may be among them.
	Contestants []Contestant
	// Unit is that of the figure in question: ns/op as usual, or the unit of a
	// metric that the benchmark reports.
	Unit string
}

// Name returns the name of the benchmark of a contestant at a point.
func (s Scale) Name(point int, contestant string) string {
	return "Benchmark" + s.Layer + "/" + strconv.Itoa(point) + "/" + contestant
}

// Scales returns the scales in the order of a report.
func Scales() []Scale { return slices.Clone(scales) }

const (
	nanoseconds = "ns/op"
	// heapBytes are the bytes of the heap that a limiter keeps in use.
	heapBytes = "held-B"
	// worst is the longest of all calls.
	worst = "worst-ns"
)

var (
	exact = []Contestant{
		{Name: Usher, Module: usherModule},
		{Name: "x-time-rate-lru", Module: lru, Floor: true, LeavesOut: "several policies, a clock that never goes back, the memory of evicted keys"},
		{Name: "go-limiter", Module: goLimiter},
		{Name: "echo", Module: echo5},
		{Name: "httprate", Module: httprate},
	}
	holding = limiters
	// forgetting are the limiters and the machine itself, whose worst call shows how
	// much the machine adds to the worst call of each limiter.
	forgetting = append([]Contestant{{Name: "machine", Floor: true, LeavesOut: "everything: the clock alone"}}, limiters...)
	onceAt     = []Contestant{
		{Name: "bare", Floor: true, LeavesOut: "everything: the handler alone"},
		{Name: Usher, Base: "bare", Module: usherModule},
		{Name: "by-hand-fingerprint", Base: "bare", LeavesOut: "the caller and the route, bounds on memory, leases, metrics"},
	}
	bodies = []int{100, 1 << 10, 16 << 10, 128 << 10, 1 << 20}
)

var scales = []Scale{
	{
		Layer: "ScaleKeys", About: "one decision by one policy, keys in no order", Axis: "keys",
		Points: []int{100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000}, Large: 10_000_000, Contestants: exact, Unit: nanoseconds,
	},
	{
		Layer: "ScalePolicies", About: "one decision over several policies with a key each", Axis: "policies",
		Points: []int{1, 2, 3, 5, 8}, Contestants: exact[:1], Unit: nanoseconds,
	},
	{
		Layer: "ScaleGoroutines", About: "one decision by one policy for one of 10,000 keys, by many goroutines at once", Axis: "goroutines",
		Points: []int{1, 4, 32, 256, 1024}, Contestants: exact, Unit: nanoseconds,
	},
	{
		Layer: "ScaleFirst", About: "a first request with an idempotency key and a response of the same size", Axis: "bytes",
		Points: bodies, Contestants: onceAt, Unit: nanoseconds,
	},
	{
		Layer: "ScaleReplay", About: "a repetition of a request with an idempotency key and a response of the same size", Axis: "bytes",
		Points: bodies, Contestants: onceAt, Unit: nanoseconds,
	},
	{
		Layer: "ScaleExplicit", About: "a handler responds with a value in the standard envelope", Axis: "bytes",
		Points: bodies, Unit: nanoseconds, Contestants: []Contestant{
			{Name: "json-data", Floor: true, LeavesOut: "the envelope: json.Marshal of the data alone"},
			{Name: Usher, Module: usherModule},
			{Name: "encoding-json", LeavesOut: "request IDs, responses of others"},
		},
	},
	{
		Layer: "ScaleWrap", About: "JSON that a handler writes is put into the standard envelope", Axis: "bytes",
		Points: bodies, Unit: nanoseconds, Contestants: []Contestant{
			{Name: "bare", Floor: true, LeavesOut: "everything: the handler alone"},
			{Name: Usher, Base: "bare", Module: usherModule},
			{Name: "decode-encode", Base: "bare", LeavesOut: "request IDs, streams, ranges, errors"},
		},
	},
	{
		Layer: "ScaleMemory", About: "what a limiter holds after a flood of new keys, each seen once", Axis: "keys",
		Points: []int{10_000, 100_000, 1_000_000}, Contestants: holding, Unit: heapBytes,
	},
	{
		Layer: "ScalePause", About: "the longest call in a flood of new keys and, once they have expired, while one key goes on", Axis: "keys",
		Points: []int{1_000_000}, Contestants: forgetting, Unit: worst,
	},
}
