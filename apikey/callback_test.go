package apikey_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/compare"
)

// A spoiler panics while it is on.
type spoiler struct{ on atomic.Bool }

func (s *spoiler) spoil() {
	if s.on.Load() {
		panic(http.ErrAbortHandler)
	}
}

// spoiledFormat is a format of the application that panics.
type spoiledFormat struct {
	apikey.Format
	*spoiler
}

func (f spoiledFormat) Parse(text string) (environment string, visible int, ok bool) {
	f.spoil()
	return f.Format.Parse(text)
}

func TestACallbackThatPanicsLetsNoRequestPass(t *testing.T) {
	bad := new(spoiler)
	for name, c := range map[string]apikey.Config{
		"Check": {Check: func(context.Context, *apikey.Key) error { bad.spoil(); return nil }},
		"Principal": {Principal: func(_ *apikey.Key, usual usher.Principal) usher.Principal {
			bad.spoil()
			return usual
		}},
		"Audit":  {Audit: func(context.Context, apikey.Event) { bad.spoil() }},
		"Format": {},
	} {
		t.Run(name, func(t *testing.T) {
			mc := apikey.ManagerConfig{Store: apikey.NewMemory(), Format: native}
			if name == "Format" {
				mc.Format = spoiledFormat{native, bad}
			}
			m := newManager(t, mc)
			_, text := create(t, m, apikey.Key{})
			revoked, revokedText := create(t, m, apikey.Key{})
			if _, err := m.Revoke(t.Context(), server, "ann", revoked.ID); err != nil {
				t.Fatal(err)
			}
			var reported atomic.Int64
			c.OnError = func(context.Context, error) { reported.Add(1) }
			var reached atomic.Int64
			srv := httptest.NewServer(usher.Authenticate(newAuthenticator(t, mc, c)).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				reached.Add(1)
			})))
			defer srv.Close()
			bad.on.Store(true)
			if response := exchange(t, srv, "X-API-Key", text); !strings.HasPrefix(response, "503") || reached.Load() != 0 {
				t.Errorf("a valid key: reached %d times, %s", reached.Load(), response)
			}
			if reported.Load() != 1 {
				t.Errorf("a valid key: OnError was called %d times", reported.Load())
			}
			if response := exchange(t, srv, "X-API-Key", revokedText); strings.HasPrefix(response, "2") || reached.Load() != 0 {
				t.Errorf("a revoked key: %s", response)
			} else if c.Audit != nil && (!strings.HasPrefix(response, "401") || reported.Load() != 2) {
				t.Errorf("a revoked key: OnError was called %d times, %s", reported.Load(), response)
			}
			bad.on.Store(false)
			if response := exchange(t, srv, "X-API-Key", text); !strings.HasPrefix(response, "200") {
				t.Errorf("once it no longer panics: %s", response)
			}
		})
	}
}

// A key that cannot be shown to its owner is not stored: it would be valid and count
// against the limit, and nobody would have its text.
func TestACallbackThatPanicsChangesNothing(t *testing.T) {
	bad := new(spoiler)
	issued := func(k apikey.Key, s apikey.Secret) any { return map[string]any{"api_key": s.Reveal(), "key": k} }
	for name, test := range map[string]struct {
		manager apikey.ManagerConfig
		handler apikey.HandlerConfig
		spares  string // the calls that it has nothing to do with
	}{
		"Change": {manager: apikey.ManagerConfig{Change: func(context.Context, apikey.Actor, *apikey.Key, *apikey.Key) error {
			bad.spoil()
			return nil
		}}, spares: "DELETE"},
		"Format": {manager: apikey.ManagerConfig{Format: spoiledFormat{native, bad}}, spares: "PATCH DELETE"},
		"Principal": {handler: apikey.HandlerConfig{Principal: func(*http.Request) (usher.Principal, error) {
			bad.spoil()
			return usher.Principal{ID: "u1", Owner: "ann"}, nil
		}}},
		"KeyView": {handler: apikey.HandlerConfig{KeyView: func(k apikey.Key) any { bad.spoil(); return k }}, spares: "POST DELETE"},
		"IssuedView": {handler: apikey.HandlerConfig{IssuedView: func(k apikey.Key, s apikey.Secret) any {
			bad.spoil()
			return issued(k, s)
		}}, spares: "PATCH DELETE"},
		"an IssuedView that cannot be encoded": {handler: apikey.HandlerConfig{IssuedView: func(k apikey.Key, s apikey.Secret) any {
			if bad.on.Load() {
				return func() {}
			}
			return issued(k, s)
		}}, spares: "PATCH DELETE"},
		"a KeyView whose encoder panics": {handler: apikey.HandlerConfig{KeyView: func(k apikey.Key) any {
			return map[string]any{"key": k, "encoder": encoder{bad}}
		}}, spares: "POST DELETE"},
	} {
		t.Run(name, func(t *testing.T) {
			test.manager.Store = apikey.NewMemory()
			m := newManager(t, test.manager)
			test.handler.Manager = m
			c := newWire(t, test.handler, &usher.Principal{ID: "u1", Owner: "ann", Kind: usher.KindJWT})
			k, _ := create(t, m, apikey.Key{})
			bad.on.Store(true)
			for _, call := range []struct{ method, target, body string }{
				{"POST", "/", `{"name":"x"}`}, {"POST", "/" + k.ID + "/rotate", `{"grace_seconds":60}`},
				{"PATCH", "/" + k.ID, `{"name":"y"}`}, {"DELETE", "/" + k.ID, ""},
			} {
				if strings.Contains(test.spares, call.method) {
					continue
				}
				if status, v := c.do(call.method, call.target, call.body); status != 500 {
					t.Errorf("%s %s: %d %v", call.method, call.target, status, v)
				}
			}
			bad.on.Store(false)
			if keys, total, err := m.List(t.Context(), "ann", 0, 9); err != nil || total != 1 || !compare.Equal(keys[0], k) {
				t.Errorf("%d keys, %+v, %v", total, keys, err)
			}
			if status, v := c.do("POST", "/"+k.ID+"/rotate", ""); status != 201 || member(v, "api_key") == "" {
				t.Errorf("once it no longer panics: %d %v", status, v)
			}
		})
	}
}

// An encoder is a value that panics when it is encoded.
type encoder struct{ *spoiler }

func (e encoder) MarshalJSON() ([]byte, error) {
	e.spoil()
	return []byte("1"), nil
}

// The caller learns of a change that was made, even if its audit fails.
func TestAnAuditThatPanicsLosesNoKey(t *testing.T) {
	var reported []error
	store := apikey.NewMemory()
	m := newManager(t, apikey.ManagerConfig{
		Store: store,
		Audit: func(context.Context, apikey.Event) { panic("oops") },
		// OnError may panic as well.
		OnError: func(_ context.Context, err error) { reported = append(reported, err); panic("again") },
	})
	c := newWire(t, apikey.HandlerConfig{Manager: m}, &usher.Principal{ID: "u1", Owner: "ann", Kind: usher.KindJWT})
	status, v := c.do("POST", "/", `{"name":"x"}`)
	text, _ := member(v, "api_key").(string)
	if status != 201 || text == "" {
		t.Fatalf("create: %d %v", status, v)
	}
	if _, err := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{}).Authenticate(request("X-API-Key", text)); err != nil {
		t.Error(err)
	}
	id := member(v, "key", "id").(string)
	if status, v := c.do("PATCH", "/"+id, `{"name":"y"}`); status != 200 {
		t.Errorf("update: %d %v", status, v)
	}
	if status, v := c.do("DELETE", "/"+id, ""); status != 204 {
		t.Errorf("revoke: %d %v", status, v)
	}
	if status, v := c.do("DELETE", "/unknown", ""); status != 404 {
		t.Errorf("revoke of nothing: %d %v", status, v)
	}
	if len(reported) != 4 || !strings.Contains(reported[0].Error(), "oops") {
		t.Errorf("reported %v", reported)
	}
}

// A view gets a copy, because the stored key has already been validated.
func TestAViewCannotChangeWhatIsStored(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	c := newWire(t, apikey.HandlerConfig{
		Manager: m, Scopes: []string{"a"},
		KeyView:    func(k apikey.Key) any { k.Scopes[0] = "admin"; return k },
		IssuedView: func(k apikey.Key, _ apikey.Secret) any { k.Scopes[0] = "admin"; return k },
	}, &usher.Principal{ID: "u1", Owner: "ann", Kind: usher.KindJWT})
	_, v := c.do("POST", "/", `{"name":"x","scopes":["a"]}`)
	_, _ = c.do("PATCH", "/"+member(v, "id").(string), `{"name":"y"}`)
	_, _ = c.do("POST", "/"+member(v, "id").(string)+"/rotate", "")
	keys, total, err := m.List(t.Context(), "ann", 0, 9)
	if err != nil || total != 2 || keys[0].Scopes[0] != "a" || keys[1].Scopes[0] != "a" {
		t.Errorf("%+v, %v", keys, err)
	}
}

// Nothing else recovers a panic on a goroutine of the package: it would end the process.
func TestOnErrorThatPanicsDoesNotEndTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reported atomic.Int64
		onError := func(context.Context, error) { reported.Add(1); panic("oops") }
		lost := errors.New("lost")
		f := &fragile{Store: newScripted(t, 1), broken: make(chan error), back: make(chan struct{})}
		c := newCache(t, apikey.CacheConfig{Store: f, OnError: onError})
		f.back <- struct{}{}
		f.broken <- lost
		synctest.Wait()
		if reported.Load() != 1 {
			t.Errorf("the cache has reported %d errors", reported.Load())
		}
		f.back <- struct{}{} // the watch continues
		synctest.Wait()
		mustLookup(t, c, record(0), false)
		if keys, _ := c.Kept(); keys != 1 {
			t.Errorf("%d keys are kept", keys)
		}

		s := &touched{Store: apikey.NewMemory()}
		s.fail(func() error { return lost })
		a, err := apikey.New(apikey.Config{Manager: newManager(t, apikey.ManagerConfig{Store: s}), LastUseInterval: time.Second, OnError: onError})
		if err != nil {
			t.Fatal(err)
		}
		a.RecordUse(request(), &usher.Principal{ID: "k"})
		time.Sleep(2500 * time.Millisecond)
		if reported.Load() != 3 {
			t.Errorf("reported %d errors, want one more in each of 2 intervals", reported.Load())
		}
		if err := a.Close(); !errors.Is(err, lost) {
			t.Error(err)
		}
	})
}
