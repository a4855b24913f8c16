package tests_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
)

// A fault is what becomes of the calls of all stores at a time.
type fault struct {
	fail, panic, hang, late float64 // their shares
	delay                   time.Duration
}

var errFault = errors.New("the store has failed")

type faults struct{ now atomic.Pointer[fault] }

// strike lets a call fail, or take its time.
func (f *faults) strike(ctx context.Context) error {
	now := f.now.Load()
	switch x := rand.Float64(); {
	case x < now.fail:
		return errFault
	case x < now.fail+now.panic:
		panic("store")
	case x < now.fail+now.panic+now.hang:
		<-ctx.Done()
		return ctx.Err()
	case x < now.fail+now.panic+now.hang+now.late:
		time.Sleep(now.delay)
	}
	return nil
}

// call calls f between two strokes: it may have an effect although it fails.
func call[T any](ctx context.Context, s *faults, f func() (T, error)) (v T, err error) {
	if rand.IntN(2) == 0 {
		if err := s.strike(ctx); err != nil {
			return v, err
		}
		return f()
	}
	v, err = f()
	if lost := s.strike(ctx); lost != nil {
		return *new(T), lost
	}
	return v, err
}

type nothing = struct{}

type keyStore struct {
	apikey.Store
	*faults
	lookups atomic.Int64
}

func (s *keyStore) Lookup(ctx context.Context, h apikey.Hash) (apikey.Record, error) {
	s.lookups.Add(1)
	return call(ctx, s.faults, func() (apikey.Record, error) { return s.Store.Lookup(context.WithoutCancel(ctx), h) })
}

func (s *keyStore) Insert(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
	_, err := call(ctx, s.faults, func() (nothing, error) { return nothing{}, s.Store.Insert(context.WithoutCancel(ctx), r, limits) })
	return err
}

func (s *keyStore) Revoke(ctx context.Context, owner, id string, at time.Time) (apikey.Record, error) {
	return call(ctx, s.faults, func() (apikey.Record, error) {
		return s.Store.Revoke(context.WithoutCancel(ctx), owner, id, at)
	})
}

type recordStore struct {
	idempotency.Store
	*faults
}

func (s *recordStore) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	return call(ctx, s.faults, func() (idempotency.Record, error) { return s.Store.Claim(context.WithoutCancel(ctx), c) })
}

func (s *recordStore) Renew(ctx context.Context, claims []idempotency.ClaimID, lease time.Duration) ([]idempotency.ClaimID, error) {
	return call(ctx, s.faults, func() ([]idempotency.ClaimID, error) { return s.Store.Renew(context.WithoutCancel(ctx), claims, lease) })
}

func (s *recordStore) Finish(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
	return call(ctx, s.faults, func() (idempotency.State, error) { return s.Store.Finish(context.WithoutCancel(ctx), c) })
}

func (s *recordStore) Find(ctx context.Context, key idempotency.Key) (idempotency.Record, error) {
	return call(ctx, s.faults, func() (idempotency.Record, error) { return s.Store.Find(context.WithoutCancel(ctx), key) })
}

func (s *recordStore) Delete(ctx context.Context, key idempotency.Key, generation uint64) error {
	_, err := call(ctx, s.faults, func() (nothing, error) {
		return nothing{}, s.Store.Delete(context.WithoutCancel(ctx), key, generation)
	})
	return err
}

type limitStore struct {
	ratelimit.Store
	*faults
}

func (s *limitStore) Take(ctx context.Context, d *ratelimit.Decision) error {
	_, err := call(ctx, s.faults, func() (nothing, error) { return nothing{}, s.Store.Take(context.WithoutCancel(ctx), d) })
	return err
}

func (s *limitStore) Adjust(ctx context.Context, d *ratelimit.Decision) error {
	_, err := call(ctx, s.faults, func() (nothing, error) { return nothing{}, s.Store.Adjust(context.WithoutCancel(ctx), d) })
	return err
}

// 200 clients retry their payments until they have a response, while all stores fail in
// every way. Each payment is made once, nobody is refused for good, no limit is exceeded
// by more than the fallback permits, and no revoked key is accepted.
func TestPaymentsOverStoresThatMisbehave(t *testing.T) {
	total := time.Second
	if d, err := time.ParseDuration(os.Getenv("USHER_SOAK")); err == nil {
		total = d
	}
	const clients, quota = 200, 1000
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var shared faults
	shared.now.Store(new(fault))
	quiet := func(context.Context, error) {}

	keys := &keyStore{Store: apikey.NewMemory(), faults: &shared}
	cache, err := apikey.NewCache(apikey.CacheConfig{Store: keys, TTL: 300 * time.Millisecond, StoreTimeout: 200 * time.Millisecond, OnError: quiet})
	must(err)
	manager, err := apikey.NewManager(apikey.ManagerConfig{Store: cache, Format: apikey.Native{Prefix: "shop"}, MaxActive: 1 << 20, OnError: quiet})
	must(err)
	auth, err := apikey.New(apikey.Config{Manager: manager, OnError: quiet})
	must(err)
	records, err := idempotency.NewMemory(idempotency.MemoryConfig{})
	must(err)
	once, err := idempotency.New(idempotency.Config{
		Store: &recordStore{Store: records, faults: &shared}, Lease: 10 * time.Second, StoreTimeout: 200 * time.Millisecond,
		FinishTimeout: time.Second, OnError: quiet,
	})
	must(err)
	counters, err := ratelimit.NewMemory(ratelimit.MemoryConfig{})
	must(err)
	limits, err := ratelimit.New(ratelimit.Config{
		Store: &limitStore{Store: counters, faults: &shared}, OnError: quiet,
		Policies: []ratelimit.Policy{
			// No limit of concurrent requests: a place whose refund is lost stays taken
			// until the store drops it, which a Memory does not.
			{
				Name: "each", Key: ratelimit.ByPrincipal(), Limit: ratelimit.RollingWindow(1_000_000, time.Hour),
				Count: func(status int) bool { return status < 500 },
			}, {
				Name: "budget", Key: ratelimit.Global(), Limit: ratelimit.RollingWindow(quota, time.Hour),
				Applies: func(r *http.Request) bool { return r.URL.Path == "/budget" },
			},
		},
	})
	must(err)

	var (
		mu         sync.Mutex
		executions = make(map[string]int)
		budget     atomic.Int64
		serial     atomic.Int64
	)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/budget" {
			budget.Add(1)
			return
		}
		if k := r.Header.Get("Idempotency-Key"); k != "" {
			mu.Lock()
			executions[k]++
			mu.Unlock()
		}
		time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, serial.Add(1))
	})
	server := httptest.NewServer(usher.Chain(usher.Authenticate(auth), limits, once).Wrap(handler))
	defer server.Close()
	client := server.Client()
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 2 * clients
	client.Timeout = 20 * time.Second

	send := func(ctx context.Context, path, key, idempotent string) (int, string) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+path, bytes.NewReader([]byte("{}")))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Api-Key", key)
		if idempotent != "" {
			r.Header.Set("Idempotency-Key", idempotent)
		}
		resp, err := client.Do(r)
		if err != nil {
			return 0, err.Error()
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return 0, err.Error()
		}
		return resp.StatusCode, string(body)
	}

	var texts []string
	by := apikey.Actor{System: true}
	for range 50 {
		_, secret, err := manager.Create(t.Context(), by, apikey.Key{Owner: "shop", Name: "x", Level: usher.LevelFull})
		must(err)
		texts = append(texts, secret.Reveal())
	}

	phases := []fault{
		{fail: 0.004, panic: 0.003, late: 0.003, delay: 500 * time.Millisecond},
		{fail: 1},
		{late: 0.3, delay: 195 * time.Millisecond},
		{hang: 1},
		{fail: 0.2, panic: 0.2, late: 0.1, delay: 205 * time.Millisecond},
		{},
		{late: 1, delay: 400 * time.Millisecond},
		{fail: 0.6},
	}
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for end := time.Now().Add(total); time.Now().Before(end); {
			for i := range phases {
				shared.now.Store(&phases[i])
				time.Sleep(max(total/24, 300*time.Millisecond))
			}
		}
		shared.now.Store(new(fault))
	}()
	running := func() bool {
		select {
		case <-stop:
			return false
		default:
			return true
		}
	}

	statuses := make(map[int]int)
	responded := make(map[string]string)
	note := func(status int) {
		mu.Lock()
		statuses[status]++
		mu.Unlock()
	}
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for i := 0; running(); i++ {
				k := fmt.Sprintf("%d-%d", c, i)
				text := texts[rand.IntN(len(texts))]
				if c%8 == 0 {
					status, body := send(t.Context(), "/budget", text, "")
					if note(status); status != 200 && status != 429 && status != 503 {
						t.Errorf("budget: %d %s", status, body)
					}
					continue
				}
				text = texts[c%len(texts)] // the owner of the idempotency key
				began := time.Now()
				for done := 0; done < 2; {
					ctx, cancel := context.WithCancel(t.Context())
					if rand.IntN(10) == 0 { // disconnects
						time.AfterFunc(time.Duration(rand.IntN(20))*time.Millisecond, cancel)
					}
					status, body := send(ctx, "/pay", text, k)
					gone := ctx.Err() != nil
					cancel()
					note(status)
					switch {
					case status == 201:
						mu.Lock()
						if first, ok := responded[k]; ok && first != body {
							t.Errorf("%s: responses %s and %s", k, first, body)
						}
						responded[k] = body
						mu.Unlock()
						done++
						continue
					case status == 503, status == 429, status == 409 && bytes.Contains([]byte(body), []byte("in_progress")), status == 0 && gone:
					default:
						t.Errorf("%s: %d %s", k, status, body)
						return
					}
					if time.Since(began) > total+60*time.Second {
						t.Errorf("%s: no response: %d %s", k, status, body)
						return
					}
					time.Sleep(time.Duration(10+rand.IntN(90)) * time.Millisecond)
				}
			}
		})
	}
	// Keys come and go.
	var revoked, issued atomic.Int64
	for range 8 {
		all.Go(func() {
			for running() {
				k, secret, err := manager.Create(t.Context(), by, apikey.Key{Owner: "guest", Name: "x", Level: usher.LevelFull})
				if err != nil {
					time.Sleep(20 * time.Millisecond)
					continue
				}
				issued.Add(1)
				for range 3 {
					if status, body := send(t.Context(), "/", secret.Reveal(), ""); status == 401 || status == 403 {
						t.Errorf("a key that was just issued: %d %s", status, body)
					}
				}
				var users sync.WaitGroup
				halt := make(chan struct{})
				var after atomic.Bool
				for range 3 {
					users.Go(func() {
						for {
							was := after.Load()
							if status, body := send(t.Context(), "/", secret.Reveal(), ""); was && status != 401 && status != 503 && status != 429 {
								t.Errorf("a key that was revoked: %d %s", status, body)
							}
							select {
							case <-halt:
								return
							default:
							}
						}
					})
				}
				for {
					if _, err := manager.Revoke(t.Context(), by, "guest", k.ID); err == nil {
						break
					}
					time.Sleep(20 * time.Millisecond)
				}
				after.Store(true)
				revoked.Add(1)
				time.Sleep(400 * time.Millisecond)
				close(halt)
				users.Wait()
			}
		})
	}
	all.Wait()
	shutdown, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	must(once.Shutdown(shutdown))
	for k, n := range executions {
		if n != 1 {
			t.Errorf("%s was executed %d times", k, n)
		}
	}
	if n := budget.Load(); n > 2*quota {
		t.Errorf("%d requests passed a budget of %d in the store and as many in the process", n, quota)
	}
	time.Sleep(2 * time.Second)
	// Everything works again.
	ok := 0
	for range 200 {
		if status, _ := send(t.Context(), "/", texts[0], ""); status == 201 {
			ok++
		}
	}
	if ok != 200 {
		t.Errorf("%d of 200 requests succeed once the stores work again", ok)
	}
	must(auth.Close())
	must(cache.Close())
	client.CloseIdleConnections()
	t.Logf("%v; %d payments, %d keys issued, %d revoked, %d lookups, budget %d, %d of 200 afterwards, %d goroutines",
		statuses, len(executions), issued.Load(), revoked.Load(), keys.lookups.Load(), budget.Load(), ok, runtime.NumGoroutine())
}
