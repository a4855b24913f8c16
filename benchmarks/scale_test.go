package benchmarks_test

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher/benchmarks/internal/contest"
)

// A sized makes a contestant for one point of a scale.
type sized func(point int) contestant

// sizes has the contestants of each layer by name, for the scales whose points are
// measured as rows are.
var sizes = map[string]map[string]sized{
	"ScaleKeys":     scattered(),
	"ScalePolicies": {"usher": policies},
	"ScaleFirst":    postingSized(true),
	"ScaleReplay":   postingSized(false),
	"ScaleExplicit": {
		"json-data":     func(size int) contestant { return explicitAll(size)["json-data"] },
		"usher":         func(size int) contestant { return explicitAll(size)["usher"] },
		"encoding-json": func(size int) contestant { return explicitAll(size)["encoding-json"] },
	},
	"ScaleWrap": {
		"bare":          func(size int) contestant { return wrappedAll(size)["bare"] },
		"usher":         func(size int) contestant { return wrappedAll(size)["usher"] },
		"decode-encode": func(size int) contestant { return wrappedAll(size)["decode-encode"] },
	},
}

func postingSized(fresh bool) map[string]sized {
	all := make(map[string]sized)
	for _, name := range []string{"bare", "usher", "by-hand-fingerprint"} {
		all[name] = func(size int) contestant { return postingAll(size, fresh)[name] }
	}
	return all
}

// scale runs what the table lists for a layer.
func scale(b *testing.B, layer string, run func(b *testing.B, s contest.Scale, point int, name string)) {
	for _, s := range contest.Scales() {
		if s.Layer != layer {
			continue
		}
		for _, point := range s.Points {
			if s.Large > 0 && point >= s.Large && os.Getenv("USHER_BENCH_LARGE") != "1" {
				continue
			}
			for _, c := range s.Contestants {
				b.Run(strconv.Itoa(point)+"/"+c.Name, func(b *testing.B) { run(b, s, point, c.Name) })
			}
		}
	}
}

func bySize(b *testing.B, s contest.Scale, point int, name string) {
	subject := sizes[s.Layer][name](point)(b)
	if err := subject.check(); err != nil {
		b.Fatal(err)
	}
	measure(b, subject)
}

func BenchmarkScaleKeys(b *testing.B)     { scale(b, "ScaleKeys", bySize) }
func BenchmarkScalePolicies(b *testing.B) { scale(b, "ScalePolicies", bySize) }
func BenchmarkScaleFirst(b *testing.B)    { scale(b, "ScaleFirst", bySize) }
func BenchmarkScaleReplay(b *testing.B)   { scale(b, "ScaleReplay", bySize) }
func BenchmarkScaleExplicit(b *testing.B) { scale(b, "ScaleExplicit", bySize) }
func BenchmarkScaleWrap(b *testing.B)     { scale(b, "ScaleWrap", bySize) }

// TestScales runs each contestant of a scale once at its smallest point: each one that
// is listed exists, and each one that exists is listed.
func TestScales(t *testing.T) {
	for _, s := range contest.Scales() {
		made := sizes[s.Layer]
		for _, c := range s.Contestants {
			t.Run(s.Layer+"/"+c.Name, func(t *testing.T) {
				switch s.Layer {
				case "ScaleGoroutines", "ScaleMemory":
					if !deciders[c.Name](t, 0)()("client") {
						t.Error("refused")
					}
				case "ScalePause":
					if !expiring(t, c.Name)("client") {
						t.Error("refused")
					}
				default:
					if made[c.Name] == nil {
						t.Fatal("does not exist")
					}
					subject := made[c.Name](s.Points[0])(t)
					if err := subject.check(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for name := range made {
			if !slices.ContainsFunc(s.Contestants, func(c contest.Contestant) bool { return c.Name == name }) {
				t.Errorf("%s/%s is not in the table", s.Layer, name)
			}
		}
	}
}

// scattered decides for keys in an order that the caches of a processor cannot
// predict.
func scattered() map[string]sized {
	all := make(map[string]sized)
	for _, name := range []string{"usher", "x-time-rate-lru", "go-limiter", "echo", "httprate"} {
		maker := deciders[name]
		all[name] = func(n int) contestant {
			return func(tb testing.TB) subject {
				decide, keys := maker(tb, 2*n)(), addresses(n)
				for _, key := range keys {
					decide(key)
				}
				next := uint64(1)
				run := func() {
					next = next*6364136223846793005 + 1442695040888963407
					kept.ok = decide(keys[next>>33%uint64(n)])
				}
				admitted := func() error {
					if !kept.ok {
						return errors.New("refused")
					}
					return nil
				}
				return subject{run: run, after: admitted, check: func() error { run(); return admitted() }}
			}
		}
	}
	return all
}

func BenchmarkScaleGoroutines(b *testing.B) {
	keys := addresses(10_000)
	scale(b, "ScaleGoroutines", func(b *testing.B, _ contest.Scale, goroutines int, name string) {
		handle := deciders[name](b, 2*len(keys))
		decide := handle()
		for _, key := range keys {
			if !decide(key) {
				b.Fatal("refused")
			}
		}
		b.ReportAllocs()
		b.ResetTimer()
		var all sync.WaitGroup
		for g := range goroutines {
			all.Go(func() {
				decide := handle()
				// As many as its share of b.N, by turns through the keys.
				for i := g; i < b.N; i += goroutines {
					decide(keys[i*7919%len(keys)])
				}
			})
		}
		all.Wait()
	})
}

// flood sends n new keys, each once.
func flood(n int, decide decider) {
	key := make([]byte, 0, 16)
	for i := range n {
		key = strconv.AppendInt(append(key[:0], "client-"...), int64(i), 10)
		decide(string(key))
	}
}

// BenchmarkScaleMemory reports what is left on the heap when a flood has passed,
// as "held-B", and as B/key for each key that was sent.
func BenchmarkScaleMemory(b *testing.B) {
	scale(b, "ScaleMemory", func(b *testing.B, _ contest.Scale, n int, name string) {
		var inUse float64
		for b.Loop() {
			before := heap()
			decide := deciders[name](b, 0)()
			flood(n, decide)
			inUse = max(0, float64(heap())-float64(before))
			runtime.KeepAlive(decide)
		}
		b.ReportMetric(inUse, "held-B")
		b.ReportMetric(inUse/float64(n), "B/key")
	})
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkScalePause reports the longest call as worst-ns, and as worst-cpu-ns the
// longest by the time that its thread has run. A busy machine stops any call now and
// then, and the collector any goroutine: then only the first is long, as that of
// "machine" is. A sweep within a call makes both long, and a sweep elsewhere that
// holds a lock the first, in each round.
func BenchmarkScalePause(b *testing.B) {
	scale(b, "ScalePause", func(b *testing.B, _ contest.Scale, n int, name string) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var longest, longestRun time.Duration
		for b.Loop() {
			decide := expiring(b, name)
			runtime.GC()
			longest, longestRun = 0, 0
			timed := func(key string) bool {
				run, start := threadTime(), time.Now()
				ok := decide(key)
				longest = max(longest, time.Since(start))
				longestRun = max(longestRun, threadTime()-run)
				return ok
			}
			flood(n, timed)
			for end := time.Now().Add(2 * expiry); time.Now().Before(end); {
				timed("client-1")
			}
		}
		b.ReportMetric(float64(longest.Nanoseconds()), "worst-ns")
		b.ReportMetric(float64(longestRun.Nanoseconds()), "worst-cpu-ns")
	})
}
