package benchmarks_test

import (
	"context"
	"crypto/sha256"
	"hash/crc32"
	"hash/maphash"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// plain is a subject without a result to check.
func plain(run func()) contestant {
	return func(testing.TB) subject {
		return subject{run: run, check: func() error { return nil }}
	}
}

// kept keeps the compiler from removing unused results.
var kept struct {
	time   time.Time
	hash   uint64
	digest [sha256.Size]byte
	text   [6]byte
	value  any
	ok     bool
}

type contextKey int

var floorWorks = suite{
	"Floor/clock": {"go": plain(func() { kept.time = time.Now() })},
	"Floor/mutex": {"go": func(testing.TB) subject {
		var mu sync.Mutex
		return plain(func() {
			mu.Lock()
			mu.Unlock() //nolint:staticcheck // SA2001: the empty section is what is measured.
		})(nil)
	}},
	"Floor/maphash": {"go": func(testing.TB) subject {
		seed, text := maphash.MakeSeed(), strings.Repeat("k", 16)
		return plain(func() { kept.hash = maphash.String(seed, text) })(nil)
	}},
	"Floor/handler": {"go": func(testing.TB) subject {
		return call{handler: http.HandlerFunc(nothing), request: get(), want: http.StatusOK}.subject()
	}},
	"Floor/context": {"one": copies(1), "five": copies(5)},
	"Floor/header": {
		"set": plain(func() {
			h := make(http.Header, 3)
			for i, name := range fields {
				h.Set(name, strconv.Itoa(1000+i))
			}
		}),
		"assigned": plain(func() {
			h := make(http.Header, 3)
			for i, name := range fields {
				h[name] = []string{strconv.Itoa(1000 + i)}
			}
		}),
	},
	"Floor/sha256": {"47B": digest(47), "400B": digest(400)},
	"Floor/lru": {"hit": func(testing.TB) subject {
		cache := must(lru.New[string, int](1024))
		cache.Add("key", 1)
		return plain(func() { kept.value, kept.ok = cache.Get("key") })(nil)
	}},
	"Floor/crc32": {"43B": func(testing.TB) subject {
		text := []byte(strings.Repeat("a", 43))
		return plain(func() {
			const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
			sum := crc32.ChecksumIEEE(text)
			for i := len(kept.text) - 1; i >= 0; i-- {
				kept.text[i] = base62[sum%62]
				sum /= 62
			}
		})(nil)
	}},
	"Floor/counter": {
		"no-provider": func(testing.TB) subject { return counting(otel.GetMeterProvider()) },
		"sdk": func(tb testing.TB) subject {
			p := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
			tb.Cleanup(func() { _ = p.Shutdown(context.Background()) })
			return counting(p)
		},
	},
}

var fields = [3]string{"X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"}

func copies(n int) contestant {
	r := get()
	return plain(func() {
		r := r
		for i := range n {
			r = r.WithContext(context.WithValue(r.Context(), contextKey(i), r))
		}
	})
}

func digest(size int) contestant {
	text := make([]byte, size)
	return plain(func() { kept.digest = sha256.Sum256(text) })
}

func counting(p metric.MeterProvider) subject {
	counter := must(p.Meter("floor").Int64Counter("calls"))
	options := []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(attribute.String("a", "1"), attribute.String("b", "2")))}
	ctx := context.Background()
	return plain(func() { counter.Add(ctx, 1, options...) })(nil)
}
