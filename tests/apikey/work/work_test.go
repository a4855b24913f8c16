//go:build linux && amd64

// Package work_test counts the instructions that requests take. A time varies with all
// that the machine does; a number of instructions can be compared exactly.
package work_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/race"
)

const (
	// measured is set in the process that is measured. Its value is the name of a setup.
	measured = "USHER_WORK_SETUP"
	keys     = 4 // of each class
)

// The main goroutine must stay on the main thread, which alone is traced.
func init() {
	if os.Getenv(measured) != "" {
		runtime.LockOSThread()
	}
}

func TestMain(m *testing.M) {
	if name := os.Getenv(measured); name != "" {
		if err := serve(setups[name]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var native = apikey.Native{Prefix: "shop", Environments: []string{"live", "test"}}

// A setup is one configuration of a service.
type setup struct {
	cached  bool
	peppers []apikey.Pepper
}

var pepper = apikey.NewSecret("a key of thirty-two bytes or more")

var setups = map[string]setup{
	"a cache":                  {cached: true},
	"a memory and two peppers": {peppers: []apikey.Pepper{{}, {Version: 1, Key: pepper}}},
}

// A class is a kind of key. Its keys are made by the functions.
type class struct {
	name string
	// end makes a key unusable; it is nil for text that was never issued.
	end func(m *apikey.Manager, k apikey.Key) error
	// used means that the key was accepted before it became unusable.
	used bool
	// text changes the text of the key, if it is not nil.
	text func(text string) string
}

var (
	ctx    = context.Background()
	server = apikey.Actor{System: true}
)

func change(f func(*apikey.Key)) func(*apikey.Manager, apikey.Key) error {
	return func(m *apikey.Manager, k apikey.Key) error {
		_, err := m.Update(ctx, server, k.Owner, k.ID, f)
		return err
	}
}

func revoke(m *apikey.Manager, k apikey.Key) error {
	_, err := m.Revoke(ctx, server, k.Owner, k.ID)
	return err
}

func expire(k *apikey.Key)  { k.ExpiresAt = time.Now().Add(50 * time.Millisecond) }
func disable(k *apikey.Key) { k.DisabledAt = time.Now() }
func move(k *apikey.Key) {
	k.AllowedNetworks = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
}

// The classes that no client without the text of a key can distinguish come first. The
// first of all is what the others are compared with.
var classes = []class{
	{name: "unknown"},
	{name: "revoked", end: revoke},
	{name: "revoked after use", end: revoke, used: true},
	{name: "expired", end: change(expire)},
	{name: "expired after use", end: change(expire), used: true},
	{name: "disabled", end: change(disable)},
	{name: "another network", end: change(move)},
	{name: "malformed", text: func(text string) string { return text[:len(text)-1] + "?" }},
	{name: "another environment", text: func(text string) string { return "shop_test_" + text[len("shop_live_"):] }},
}

// alike is how many of the classes those are.
const alike = 7

// A writer takes a response with as little work as possible.
type writer struct {
	header http.Header
	status int
}

func (w *writer) Header() http.Header         { return w.header }
func (w *writer) Write(p []byte) (int, error) { return len(p), nil }
func (w *writer) WriteHeader(status int)      { w.status = status }

// serve sends the requests of every class, each between two breakpoints.
func serve(s setup) error {
	debug.SetGCPercent(-1)
	var store apikey.Store = apikey.NewMemory()
	if s.cached {
		cache, err := apikey.NewCache(apikey.CacheConfig{Store: struct{ apikey.Store }{store}, TTL: time.Hour, NegativeTTL: time.Hour})
		if err != nil {
			return err
		}
		store = cache
	}
	m, err := apikey.NewManager(apikey.ManagerConfig{Store: store, Format: native, Peppers: s.peppers, MaxActive: 1000})
	if err != nil {
		return err
	}
	a, err := apikey.New(apikey.Config{Manager: m, Environment: "live", LastUseInterval: -1})
	if err != nil {
		return err
	}
	h := usher.Authenticate(a).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	request := func(text string) (*writer, *http.Request) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("X-API-Key", text)
		return &writer{header: http.Header{}}, r
	}
	texts := make([][]string, len(classes))
	for i, c := range classes {
		for range keys {
			text, err := c.issue(m, h, request)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			texts[i] = append(texts[i], text)
		}
	}
	time.Sleep(100 * time.Millisecond) // until the keys have expired
	for i := range classes {
		for _, text := range texts[i] {
			for range 20 { // fills the caches and pools
				w, r := request(text)
				h.ServeHTTP(w, r)
				if w.status != http.StatusUnauthorized {
					return fmt.Errorf("%s: status %d", classes[i].name, w.status)
				}
			}
		}
	}
	time.Sleep(10 * time.Millisecond) // until the other threads are idle
	runtime.Breakpoint()
	// Without other threads, the main goroutine must be able to yield to itself.
	runtime.UnlockOSThread()
	for i := range classes {
		for _, text := range texts[i] {
			w, r := request(text)
			runtime.Breakpoint()
			h.ServeHTTP(w, r)
			runtime.Breakpoint()
		}
	}
	return nil
}

// issue returns the text of a new key of this class.
func (c *class) issue(m *apikey.Manager, h http.Handler, request func(string) (*writer, *http.Request)) (string, error) {
	other, err := apikey.NewManager(apikey.ManagerConfig{Store: apikey.NewMemory(), Format: native})
	if err != nil {
		return "", err
	}
	by := m
	if c.end == nil {
		by = other
	}
	k, secret, err := by.Create(ctx, server, apikey.Key{Owner: "ann", Name: c.name})
	if err != nil {
		return "", err
	}
	text := secret.Reveal()
	switch {
	case c.text != nil:
		return c.text(text), nil
	case c.end == nil:
		return text, nil
	}
	if c.used {
		for range 3 {
			w, r := request(text)
			h.ServeHTTP(w, r)
			if w.status != 0 {
				return "", errors.New("the key is not accepted before its end")
			}
		}
	}
	return text, c.end(m, k)
}

// The work of a refusal does not show whether a key was never issued, or has ended, or is
// paused, or is used from another network. A malformed key, and one whose text names
// another environment, are refused with less work, before any lookup: everyone can see the
// form of a key, and nothing about the store follows from it.
func TestRefusalsOfWellFormedKeysTakeTheSameNumberOfInstructions(t *testing.T) {
	if testing.Short() {
		t.Skip("executes millions of instructions one by one")
	}
	if race.Enabled {
		t.Skip("the race detector multiplies the instructions, and needs the threads that are stopped here")
	}
	for name := range setups {
		t.Run(name, func(t *testing.T) {
			limit, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(limit, os.Args[0])
			cmd.Env = append(os.Environ(), measured+"="+name, "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1")
			cmd.Stderr = os.Stderr
			p := trace(t, cmd)
			var least []int // of the keys of each class: whatever disturbs only adds
			for _, c := range classes {
				var counts []int
				for range keys {
					p.run()
					counts = append(counts, p.count())
				}
				least = append(least, slices.Min(counts))
				t.Logf("%-20s %d instructions, %+.1f %%", c.name, slices.Min(counts), 100*(float64(slices.Min(counts))/float64(least[0])-1))
			}
			lowest, highest := slices.Min(least[:alike]), slices.Max(least[:alike])
			if float64(highest) > 1.05*float64(lowest) {
				t.Errorf("from %d to %d instructions, want a difference of at most 5 %%", lowest, highest)
			}
			for i := alike; i < len(classes); i++ {
				if least[i] > lowest {
					t.Errorf("a key that is refused for its form takes %d instructions, and others %d", least[i], lowest)
				}
			}
		})
	}
}
