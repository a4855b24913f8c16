package apikey_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

// A touched store records the batches that it gets.
type touched struct {
	apikey.Store
	mu      sync.Mutex
	batches []map[string]apikey.Use
	touch   func() error
}

func (s *touched) Touch(ctx context.Context, uses map[string]apikey.Use) error {
	s.mu.Lock()
	s.batches = append(s.batches, uses)
	touch := s.touch
	s.mu.Unlock()
	if touch != nil {
		if err := touch(); err != nil {
			return err
		}
	}
	return s.Store.Touch(ctx, uses)
}

// fail makes the store call f before each write.
func (s *touched) fail(f func() error) {
	s.mu.Lock()
	s.touch = f
	s.mu.Unlock()
}

func (s *touched) written() (batches, uses int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.batches {
		uses += len(b)
	}
	return len(s.batches), uses
}

// The last write is made although earlier ones have failed until a moment ago: it
// cannot be made later.
func TestCloseWritesUsesRightAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &touched{Store: apikey.NewMemory()}
		m := newManager(t, apikey.ManagerConfig{Store: s})
		k, text := create(t, m, apikey.Key{})
		a, err := apikey.New(apikey.Config{Manager: m, LastUseInterval: 10 * time.Millisecond, OnError: func(context.Context, error) {}})
		if err != nil {
			t.Fatal(err)
		}
		s.fail(func() error { return errors.New("down") })
		r := request("X-API-Key", text)
		p, err := a.Authenticate(r)
		if err != nil {
			t.Fatal(err)
		}
		p.OnUse(r, http.StatusOK)
		time.Sleep(time.Second)
		s.fail(nil)
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if lastUsed(t, m, k).IsZero() {
			t.Error("the use is lost")
		}
	})
}

func lastUsed(t testing.TB, m *apikey.Manager, k apikey.Key) time.Time {
	t.Helper()
	k, err := m.Find(t.Context(), k.Owner, k.ID)
	if err != nil {
		t.Fatal(err)
	}
	return k.LastUsedAt
}

func TestUsesAreWrittenInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &touched{Store: apikey.NewMemory()}
		m := newManager(t, apikey.ManagerConfig{Store: s})
		first, firstText := create(t, m, apikey.Key{})
		second, secondText := create(t, m, apikey.Key{})
		a := newAuthenticator(t, apikey.ManagerConfig{Store: s}, apikey.Config{LastUseInterval: 10 * time.Second})
		start := time.Now()
		for range 100 {
			for _, text := range []string{firstText, secondText} {
				r := request("X-API-Key", text)
				p, err := a.Authenticate(r)
				if err != nil {
					t.Fatal(err)
				}
				p.OnUse(r, http.StatusOK)
			}
			time.Sleep(50 * time.Millisecond)
		}
		if batches, _ := s.written(); batches != 0 {
			t.Errorf("%d writes before the interval", batches)
		}
		time.Sleep(5*time.Second + 1)
		if batches, uses := s.written(); batches != 1 || uses != 2 {
			t.Errorf("%d writes of %d uses, want 1 of 2", batches, uses)
		}
		last := start.Add(99 * 50 * time.Millisecond)
		for _, k := range []apikey.Key{first, second} {
			if got := lastUsed(t, m, k); !got.Equal(last) {
				t.Errorf("last used at %v, want %v", got, last)
			}
		}
		time.Sleep(time.Minute)
		if batches, _ := s.written(); batches != 1 {
			t.Errorf("%d writes though nothing was used", batches)
		}
	})
}

func TestManyUsesAreWrittenInBoundedBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &touched{Store: apikey.NewMemory()}
		a := newAuthenticator(t, apikey.ManagerConfig{Store: s}, apikey.Config{})
		for i := range 70_000 {
			a.RecordUse(request(), &usher.Principal{ID: fmt.Sprint(i)})
		}
		time.Sleep(10*time.Second + 1)
		batches, uses := s.written()
		if uses != 1<<16 || batches != 66 {
			t.Errorf("%d uses in %d writes, want 65536 in 66", uses, batches)
		}
		for _, b := range s.batches {
			if len(b) > 1000 {
				t.Errorf("%d uses in one write", len(b))
			}
		}
	})
}

// A key in use keeps one record of its uses, which each interval writes anew, also after a
// write that has failed.
func TestEachIntervalWritesTheLastUseOfAKeyInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &touched{Store: apikey.NewMemory()}
		m := newManager(t, apikey.ManagerConfig{Store: s})
		k, text := create(t, m, apikey.Key{})
		// A Cache keeps the key, and with it the record of its uses.
		cache := newCache(t, apikey.CacheConfig{Store: s, TTL: time.Hour})
		a := newAuthenticator(t, apikey.ManagerConfig{Store: cache}, apikey.Config{LastUseInterval: time.Second, OnError: func(context.Context, error) {}})
		time.Sleep(500 * time.Millisecond)
		for i, down := range []bool{false, false, true, false, true, true, false} {
			s.fail(func() error {
				if down {
					return errors.New("down")
				}
				return nil
			})
			before := lastUsed(t, m, k)
			r := request("X-API-Key", text)
			r.RemoteAddr = fmt.Sprintf("192.0.2.%d:1", i)
			p, err := a.Authenticate(r)
			if err != nil {
				t.Fatal(err)
			}
			p.OnUse(r, http.StatusOK)
			want := time.Now()
			if down {
				want = before
			}
			time.Sleep(time.Second)
			got, err := m.Find(t.Context(), k.Owner, k.ID)
			if err != nil || !got.LastUsedAt.Equal(want) || !down && got.LastUsedFrom.String() != fmt.Sprint("192.0.2.", i) {
				t.Errorf("use %d: last used at %v from %v, want %v, %v", i, got.LastUsedAt, got.LastUsedFrom, want, err)
			}
		}
		if batches, uses := s.written(); batches != 7 || uses != 7 {
			t.Errorf("%d writes of %d uses, want 7 of 7", batches, uses)
		}
	})
}

func TestAFailedWriteOfUsesIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("down")
		var reported []error
		s := &touched{Store: apikey.NewMemory()}
		m := newManager(t, apikey.ManagerConfig{Store: s})
		k, _ := create(t, m, apikey.Key{})
		a := newAuthenticator(t, apikey.ManagerConfig{Store: s}, apikey.Config{LastUseInterval: time.Second, OnError: func(_ context.Context, err error) { reported = append(reported, err) }})
		s.fail(func() error { return down })
		early := time.Now().UTC()
		a.RecordUse(request(), &usher.Principal{ID: k.ID})
		time.Sleep(1500 * time.Millisecond)
		s.fail(func() error { panic("oops") })
		time.Sleep(time.Second)
		synctest.Wait()
		if len(reported) != 2 || !errors.Is(reported[0], down) || !strings.Contains(reported[1].Error(), "oops") {
			t.Errorf("reported %v", reported)
		}
		s.fail(nil)
		time.Sleep(time.Second)
		if got := lastUsed(t, m, k); !got.Equal(early) {
			t.Errorf("last used at %v, want %v", got, early)
		}
		// A later use is not overwritten by the one whose write failed.
		s.fail(func() error { a.RecordUse(request(), &usher.Principal{ID: k.ID}); return down })
		a.RecordUse(request(), &usher.Principal{ID: k.ID})
		time.Sleep(time.Second)
		late := time.Now().UTC()
		s.fail(nil)
		time.Sleep(time.Second)
		if got := lastUsed(t, m, k); got.Sub(late).Abs() > 500*time.Millisecond {
			t.Errorf("last used at %v, want about %v", got, late)
		}
	})
}

func TestCloseWritesTheLastUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &touched{Store: apikey.NewMemory()}
		m := newManager(t, apikey.ManagerConfig{Store: s})
		k, _ := create(t, m, apikey.Key{})
		a, err := apikey.New(apikey.Config{Manager: newManager(t, apikey.ManagerConfig{Store: s})})
		if err != nil {
			t.Fatal(err)
		}
		a.RecordUse(request(), &usher.Principal{ID: k.ID})
		for range 2 {
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
		}
		a.RecordUse(request(), &usher.Principal{ID: k.ID})
		if got := lastUsed(t, m, k); !got.Equal(time.Now()) {
			t.Errorf("last used at %v", got)
		}
		if n := a.Noted(); n != 0 {
			t.Errorf("%d uses are noted although nothing writes them any more", n)
		}

		s.fail(func() error { return errors.New("down") })
		a, err = apikey.New(apikey.Config{Manager: newManager(t, apikey.ManagerConfig{Store: s})})
		if err != nil {
			t.Fatal(err)
		}
		a.RecordUse(request(), &usher.Principal{ID: k.ID})
		if err := a.Close(); err == nil {
			t.Error("a write that failed is not reported")
		}
	})
}

func TestRecordingOfUsesCanBeDisabled(t *testing.T) {
	s := &touched{Store: apikey.NewMemory()}
	a := newAuthenticator(t, apikey.ManagerConfig{Store: s}, apikey.Config{LastUseInterval: -1})
	a.RecordUse(request(), &usher.Principal{ID: "k"})
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if batches, _ := s.written(); batches != 0 {
		t.Errorf("%d writes", batches)
	}
}

// IC-16: a call that was refused, because of the key or by a later step, does not count
// as a use.
func TestOnlyRequestsThatAreNotRefusedAreUses(t *testing.T) {
	s := &touched{Store: apikey.NewMemory()}
	m := newManager(t, apikey.ManagerConfig{Store: s})
	a, err := apikey.New(apikey.Config{Manager: newManager(t, apikey.ManagerConfig{Store: s})})
	if err != nil {
		t.Fatal(err)
	}
	keys := map[int]apikey.Key{}
	status := 0
	h := usher.Authenticate(a).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status >= 400 {
			usher.Fail(w, r, &usher.Error{Status: status})
		}
	}))
	for _, status = range []int{200, 401, 403, 429, 500} {
		k, text := create(t, m, apikey.Key{})
		keys[status] = k
		h.ServeHTTP(httptest.NewRecorder(), request("X-API-Key", text))
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for status, k := range keys {
		used := !lastUsed(t, m, k).IsZero()
		if want := status == 200; used != want {
			t.Errorf("after %d: used %v", status, used)
		}
	}
}

func TestLateWriteDoesNotChangeARevokedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := apikey.NewMemory()
		m := newManager(t, apikey.ManagerConfig{Store: s})
		k, _ := create(t, m, apikey.Key{})
		a := newAuthenticator(t, apikey.ManagerConfig{Store: s}, apikey.Config{})
		a.RecordUse(request(), &usher.Principal{ID: k.ID})
		if _, err := m.Revoke(t.Context(), server, k.Owner, k.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := lastUsed(t, m, k); !got.IsZero() {
			t.Errorf("last used at %v", got)
		}
	})
}

// Without a Cache, each request looks its key up anew.
func TestManyUsesOfOneKeyTakeThePlaceOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &touched{Store: apikey.NewMemory()}
		m := newManager(t, apikey.ManagerConfig{Store: s})
		busy, busyText := create(t, m, apikey.Key{})
		other, otherText := create(t, m, apikey.Key{})
		a := newAuthenticator(t, apikey.ManagerConfig{Store: s}, apikey.Config{})
		use := func(text, from string) {
			r := request("X-API-Key", text)
			r.RemoteAddr = from + ":1234"
			p, err := a.Authenticate(r)
			if err != nil {
				t.Fatal(err)
			}
			p.OnUse(r, http.StatusOK)
		}
		for range 1 << 16 {
			use(busyText, "192.0.2.1")
		}
		time.Sleep(time.Second)
		last := time.Now()
		use(busyText, "192.0.2.2")
		use(otherText, "192.0.2.3")
		time.Sleep(10 * time.Second)
		for k, from := range map[*apikey.Key]string{&busy: "192.0.2.2", &other: "192.0.2.3"} {
			got, err := m.Find(t.Context(), k.Owner, k.ID)
			if err != nil || !got.LastUsedAt.Equal(last) || got.LastUsedFrom.String() != from {
				t.Errorf("last used at %v from %v, want %v from %v: %v", got.LastUsedAt, got.LastUsedFrom, last, from, err)
			}
		}
		if batches, uses := s.written(); batches != 1 || uses != 2 {
			t.Errorf("%d writes of %d uses, want 1 of 2", batches, uses)
		}
	})
}
