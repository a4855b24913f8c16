package jwk_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/race"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/internal/tokentest"
	"github.com/usher-go/usher/jwtauth/jwk"
)

func TestJ10UnknownKidsCauseOneFetchACoolDownAndKnownOnesNeverWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good := newSigner("good")
		p := new(publisher)
		p.Say(publish(good))
		v := trusting(t, simulated(t, p, nil))
		want(t, v, good.Token(), jwtauth.Accepted)
		if n := p.Fetches.Load(); n != 1 {
			t.Fatalf("%d fetches to begin with", n)
		}
		p.Serve(func(w http.ResponseWriter, _ *http.Request) { // slow from now on
			time.Sleep(800 * time.Millisecond)
			_, _ = io.WriteString(w, publish(good))
		})
		text := good.Token()
		body, signature := text[strings.IndexByte(text, '.'):strings.LastIndexByte(text, '.')], text[strings.LastIndexByte(text, '.'):]
		var (
			waiting  atomic.Int64
			most     int64
			mu       sync.Mutex
			verdicts = make(map[jwtauth.Verdict]int)
			requests sync.WaitGroup
		)
		unknown := func(kid int) {
			requests.Go(func() {
				began := time.Now()
				waiting.Add(1)
				header := b64([]byte(`{"alg":"EdDSA","kid":"` + strconv.Itoa(kid) + `"}`))
				got := tokentest.Verdict(t, v, header+body+signature)
				waiting.Add(-1)
				if d := time.Since(began); d > time.Second {
					t.Errorf("a request has waited %v", d)
				}
				mu.Lock()
				defer mu.Unlock()
				verdicts[got]++
			})
		}
		start := time.Now()
		for n := range 89 * 100 {
			for i := range map[bool]int{true: 100, false: 1}[n < 100] { // 10,000 a second, later 100
				unknown(n*100 + i)
			}
			before := time.Now()
			want(t, v, good.Token(), jwtauth.Accepted)
			if time.Since(before) != 0 {
				t.Fatal("a request with a known key has waited")
			}
			synctest.Wait()
			most = max(most, waiting.Load())
			time.Sleep(10 * time.Millisecond)
		}
		requests.Wait()
		if n := p.Fetches.Load(); n != 4 { // the first, and one each 30 s
			t.Errorf("%d fetches in %v", n, time.Since(start))
		}
		if most != 64 {
			t.Errorf("at most %d have waited", most)
		}
		// The fetches have decided about some that came before they began.
		if decided := verdicts[jwtauth.UnknownKey]; decided < 3 || decided > 3*64 || verdicts[jwtauth.Unavailable]+decided != 18_800 {
			t.Error(verdicts)
		}
	})
}

func TestJ10TenThousandUnknownKidsInASecond(t *testing.T) {
	good := newSigner("good")
	p := new(publisher)
	p.Say(publish(good))
	v := trusting(t, overTLS(t, p, func(c *jwk.RemoteConfig) { c.CoolDown = time.Hour }))
	want(t, v, good.Token(), jwtauth.Accepted)
	n := 10_000
	if race.Enabled {
		n = 1000
	}
	text := good.Token()
	body, signature := text[strings.IndexByte(text, '.'):strings.LastIndexByte(text, '.')], text[strings.LastIndexByte(text, '.'):]
	for i := range n {
		header := b64([]byte(`{"alg":"EdDSA","kid":"` + strconv.Itoa(i) + `"}`))
		verdict := jwtauth.Unavailable
		if i == 0 {
			verdict = jwtauth.UnknownKey // according to the fetch that it causes
		}
		want(t, v, header+body+signature, verdict)
	}
	want(t, v, text, jwtauth.Accepted)
	if n := p.Fetches.Load(); n != 2 {
		t.Errorf("%d fetches", n)
	}
}

func TestATokenOfANewKeyWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := newSigner("old"), newSigner("next")
		p := new(publisher)
		p.Say(publish(old))
		v := trusting(t, simulated(t, p, nil))
		want(t, v, old.Token(), jwtauth.Accepted)
		p.Say(publish(old, next))
		want(t, v, next.Token(), jwtauth.Accepted) // though the first fetch was just now
		for range 10 {                             // and so are any number of rotations
			next = newSigner("next" + next.ID)
			p.Say(publish(next))
			want(t, v, next.Token(), jwtauth.Accepted)
		}
		want(t, v, old.Token(), jwtauth.UnknownKey) // without a fetch
		synctest.Wait()
		if n := p.Fetches.Load(); n != 12 {
			t.Errorf("%d fetches", n)
		}
	})
}

func TestATokenOfANewKeyIsUnavailableWithinACoolDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := newSigner("old"), newSigner("next")
		p := new(publisher)
		p.Say(publish(old))
		v := trusting(t, simulated(t, p, nil))
		want(t, v, newSigner("unknown").Token(), jwtauth.UnknownKey)
		time.Sleep(time.Second)
		p.Say(publish(old, next))
		w := respond(t, v, request(t, next.Token()))
		if w.Code != 503 || w.Header().Get("Retry-After") != "29" {
			t.Errorf("%d %v", w.Code, w.Header())
		}
		time.Sleep(29 * time.Second) // nobody asks meanwhile
		synctest.Wait()
		if n := p.Fetches.Load(); n != 3 {
			t.Errorf("%d fetches", n)
		}
		want(t, v, next.Token(), jwtauth.Accepted)
		want(t, v, old.Token(), jwtauth.Accepted)
	})
}

func TestATokenOfANewKeyWithAnOldIDWaitsForIt(t *testing.T) {
	for _, id := range []string{"same", ""} {
		t.Run(id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old, next, forger := newSigner(id), newSigner(id), newSigner(id)
				p := new(publisher)
				p.Say(publish(old))
				v := trusting(t, simulated(t, p, nil))
				want(t, v, old.Token(), jwtauth.Accepted)
				p.Say(publish(next))
				want(t, v, next.Token(), jwtauth.Accepted)
				want(t, v, old.Token(), jwtauth.BadSignature) // although it was remembered
				want(t, v, forger.Token(), jwtauth.BadSignature)
				// That was according to a fetch. Within its cool-down only a token that does
				// not name its key may be signed with another.
				verdict := jwtauth.BadSignature
				if id == "" {
					verdict = jwtauth.Unavailable
				}
				for range 100 {
					want(t, v, forger.Token(), verdict)
					want(t, v, old.Token(), jwtauth.BadSignature)
					want(t, v, next.Token(), jwtauth.Accepted)
				}
				synctest.Wait()
				if n := p.Fetches.Load(); n != 3 {
					t.Errorf("%d fetches", n)
				}
			})
		})
	}
}

func TestJ11RemovedKeyIsRefusedAfterRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept, removed := newSigner("kept"), newSigner("removed")
		p := new(publisher)
		p.Say(publish(kept, removed))
		v := trusting(t, simulated(t, p, func(c *jwk.RemoteConfig) { c.RefreshEvery = 5 * time.Minute }))
		tokens := []string{kept.Token(), removed.Token()}
		for _, text := range tokens {
			want(t, v, text, jwtauth.Accepted)
		}
		p.Say(publish(kept))
		time.Sleep(5 * time.Minute) // the documented bound
		synctest.Wait()
		want(t, v, tokens[1], jwtauth.UnknownKey) // although it was remembered
		want(t, v, removed.Token(), jwtauth.UnknownKey)
		want(t, v, tokens[0], jwtauth.Accepted)
	})
}

// A server that publishes no usable key has a fault: accepting its set would refuse
// everybody.
func TestAKeySetWithoutAUsableKeyReplacesNone(t *testing.T) {
	s, foreign := newSigner("1"), newSigner("2")
	n := b64(rsaKey().N.Bytes())
	for name, set := range map[string]string{
		"no keys":                   keySetOf(),
		"null":                      `{"keys":null}`,
		"no member":                 `{}`,
		"keys of an unknown kind":   keySetOf(`{"kty":"AKP","kid":"1","alg":"ML-DSA-44","pub":"AAAA"}`),
		"keys for encryption":       keySetOf(`{"kty":"RSA","kid":"1","use":"enc","n":"`+n+`","e":"AQAB"}`, `{"kty":"RSA","kid":"1","alg":"RSA-OAEP","n":"`+n+`","e":"AQAB"}`),
		"keys that are too weak":    keySetOf(`{"kty":"RSA","kid":"1","alg":"RS256","n":"` + n[:100] + `","e":"AQAB"}`),
		"a secret":                  keySetOf(`{"kty":"oct","kid":"1","alg":"HS256","k":"` + b64(secret) + `"}`),
		"keys that are not objects": keySetOf("null", "1", "[]"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := new(publisher)
			p.Say(publish(s))
			failed := make(chan error, 100)
			remote := overTLS(t, p, func(c *jwk.RemoteConfig) {
				c.OnError = func(_ context.Context, err error) {
					select {
					case failed <- err:
					default:
					}
				}
			})
			api := served(t, trusting(t, remote))
			get := func(text string, want int) {
				t.Helper()
				if got := status(t, api.Client(), api.URL, text); got != want {
					t.Errorf("%d, want %d", got, want)
				}
			}
			get(s.Token(), 200)
			p.Say(set)
			get(foreign.Token(), 503) // causes a fetch, which fails
			select {
			case err := <-failed:
				if strings.Contains(err.Error(), b64(secret)) {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("no failure was reported")
			}
			get(s.Token(), 200)
			if _, err := remote.Health(); err == nil {
				t.Error("healthy")
			}
			p.Say(publish(s, foreign))
			eventually(t, "the new key", func() bool { return status(t, api.Client(), api.URL, foreign.Token()) == 200 })
			if _, err := remote.Health(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("and none at the start", func(t *testing.T) {
		p := new(publisher)
		p.Say(keySetOf())
		api := served(t, trusting(t, overTLS(t, p, nil)))
		if got := status(t, api.Client(), api.URL, s.Token()); got != 503 {
			t.Errorf("%d, want 503", got)
		}
	})
}

func TestJWKSRefreshesAheadAndNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner("1")
		p := new(publisher)
		p.Say(publish(s))
		v := trusting(t, simulated(t, p, nil))
		want(t, v, s.Token(), jwtauth.Accepted)
		p.Serve(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(4 * time.Second)
			_, _ = io.WriteString(w, publish(s))
		})
		for range 1200 {
			before := time.Now()
			want(t, v, s.Token(), jwtauth.Accepted)
			if time.Since(before) != 0 {
				t.Fatal("a request has waited")
			}
			time.Sleep(3 * time.Second)
		}
		if n := p.Fetches.Load(); n < 6 || n > 8 {
			t.Errorf("%d fetches in an hour", n)
		}
	})
}

func TestJWKSOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner("1")
		p := new(publisher)
		p.Say(publish(s))
		remote := simulated(t, p, nil)
		v := trusting(t, remote)
		want(t, v, s.Token(), jwtauth.Accepted)
		if age, err := remote.Health(); age != 0 || err != nil {
			t.Error(age, err)
		}
		started := time.Now()
		p.Serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
		for time.Since(started) < 6*time.Hour-time.Minute {
			want(t, v, s.Token(), jwtauth.Accepted) // no valid token is refused within the bound
			time.Sleep(time.Minute)
		}
		if age, err := remote.Health(); age < 5*time.Hour || err == nil {
			t.Error(age, err)
		}
		text := s.Token()
		want(t, v, text, jwtauth.Accepted) // and is remembered
		time.Sleep(time.Minute)
		want(t, v, text, jwtauth.Unavailable) // the bound holds for what is remembered too
		w := respond(t, v, request(t, s.Token()))
		if after, _ := strconv.Atoi(w.Header().Get("Retry-After")); w.Code != 503 || after < 1 || after > 30 {
			t.Errorf("%d %v", w.Code, w.Header())
		}
		fetches := p.Fetches.Load()
		time.Sleep(time.Minute)
		if n := p.Fetches.Load() - fetches; n > 3 {
			t.Errorf("%d fetches in a minute of failure", n)
		}
		p.Say(publish(s))
		time.Sleep(30 * time.Second)
		synctest.Wait()
		want(t, v, s.Token(), jwtauth.Accepted)
		if age, err := remote.Health(); age > 30*time.Second || err != nil {
			t.Error(age, err)
		}
	})
}

func TestJWKSColdStart(t *testing.T) {
	s := newSigner("1")
	t.Run("requests wait for the first fetch", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := new(publisher)
			p.Serve(func(w http.ResponseWriter, _ *http.Request) {
				time.Sleep(2 * time.Second)
				_, _ = io.WriteString(w, publish(s))
			})
			v := trusting(t, simulated(t, p, nil))
			start := time.Now()
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() { want(t, v, s.Token(), jwtauth.Accepted) })
			}
			wg.Wait()
			if d := time.Since(start); d != 2*time.Second || p.Fetches.Load() != 1 {
				t.Errorf("%v, %d fetches", d, p.Fetches.Load())
			}
		})
	})
	t.Run("but not forever", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := new(publisher)
			p.Serve(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			v := trusting(t, simulated(t, p, nil))
			start := time.Now()
			want(t, v, s.Token(), jwtauth.Unavailable)
			if d := time.Since(start); d != 5*time.Second {
				t.Error(d)
			}
			start = time.Now()
			want(t, v, s.Token(), jwtauth.Unavailable)
			if d := time.Since(start); d != 0 {
				t.Errorf("waited again for %v", d)
			}
		})
	})
	t.Run("and not when their client has gone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := new(publisher)
			p.Serve(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			v := trusting(t, simulated(t, p, nil))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start := time.Now()
			if _, err := v.Verify(ctx, s.Token()); !errors.Is(err, jwtauth.Unavailable) || time.Since(start) != time.Second {
				t.Error(err, time.Since(start))
			}
		})
	})
	t.Run("a server that comes up later is found", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := new(publisher)
			p.Serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
			remote := simulated(t, p, nil)
			v := trusting(t, remote)
			want(t, v, s.Token(), jwtauth.Unavailable)
			if age, err := remote.Health(); age != 0 || err == nil {
				t.Error(age, err)
			}
			p.Say(publish(s))
			time.Sleep(time.Second)
			synctest.Wait()
			want(t, v, s.Token(), jwtauth.Accepted)
		})
	})
}

func TestJWKSAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner("1")
		p := new(publisher)
		p.Say(publish(s))
		remote := simulated(t, p, func(c *jwk.RemoteConfig) { c.StaleAfter = time.Hour })
		v := trusting(t, remote)
		want(t, v, s.Token(), jwtauth.Accepted)
		for range 2 {
			if err := remote.Close(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour - 1)
		want(t, v, s.Token(), jwtauth.Accepted)
		time.Sleep(time.Nanosecond)
		want(t, v, s.Token(), jwtauth.Unavailable)
		if n := p.Fetches.Load(); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

// A fetch that Close has interrupted says nothing about the issuer.
func TestCloseDuringAFetchIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner("1")
		p := new(publisher)
		p.Say(publish(s))
		remote := simulated(t, p, nil)
		v := trusting(t, remote)
		want(t, v, s.Token(), jwtauth.Accepted)
		began := make(chan bool)
		p.Serve(func(_ http.ResponseWriter, r *http.Request) {
			close(began)
			<-r.Context().Done()
		})
		<-began
		if err := remote.Close(); err != nil {
			t.Error(err)
		}
		if _, err := remote.Health(); err != nil {
			t.Error(err)
		}
		want(t, v, s.Token(), jwtauth.Accepted)
		want(t, v, newSigner("1").Token(), jwtauth.BadSignature)
	})
}

// What a real server may send instead of a set. The last good one stays.
func TestJ11BadResponsesOfARealServer(t *testing.T) {
	s, foreign := newSigner("1"), newSigner("2")
	elsewhere := new(publisher)
	elsewhere.Say(publish(foreign))
	other := httptest.NewTLSServer(elsewhere)
	defer other.Close()
	many := make([]string, 100_000)
	for i := range many {
		many[i] = "{}"
	}
	for name, response := range map[string]func(w http.ResponseWriter, r *http.Request){
		"10 MB": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"pad":"`+strings.Repeat("x", 10<<20)+`",`+publish(foreign)[1:])
		},
		"10 MB without a length": func(w http.ResponseWriter, _ *http.Request) {
			for range 1000 {
				if _, err := io.WriteString(w, strings.Repeat(" ", 10<<10)); err != nil {
					return
				}
			}
		},
		"100 000 keys":     func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, keySetOf(many...)) },
		"101 keys":         func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, keySetOf(many[:101]...)) },
		"HTML":             func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>Sign in</html>") },
		"an error as JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"error":"busy"}`) },
		"null":             func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":null}`) },
		"an array":         func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `[]`) },
		"nothing":          func(http.ResponseWriter, *http.Request) {},
		"half":             func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, publish(foreign)[:40]) },
		"500": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			_, _ = io.WriteString(w, publish(foreign))
		},
		"redirect to another host": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) },
		"redirect to plain HTTP": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+r.Host, http.StatusFound)
		},
		"endless redirects": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) },
		"an abort":          func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"slow":              func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"sent byte by byte": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, " ")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(5 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := new(publisher)
			p.Say(publish(s))
			failed := make(chan error, 100)
			v := trusting(t, overTLS(t, p, func(c *jwk.RemoteConfig) {
				c.Timeout = 2 * time.Second
				c.OnError = func(_ context.Context, err error) {
					select {
					case failed <- err:
					default:
					}
				}
			}))
			want(t, v, s.Token(), jwtauth.Accepted)
			p.Serve(response)
			want(t, v, foreign.Token(), jwtauth.Unavailable) // causes a fetch
			select {
			case err := <-failed:
				t.Log(err)
			case <-time.After(10 * time.Second):
				t.Fatal("no failure was reported")
			}
			want(t, v, s.Token(), jwtauth.Accepted)
			want(t, v, foreign.Token(), jwtauth.Unavailable)
		})
	}
	t.Cleanup(func() {
		if n := elsewhere.Fetches.Load(); n != 0 {
			t.Errorf("the other host was asked %d times", n)
		}
	})
}

func TestJWKSFollowsARedirectOnItsHost(t *testing.T) {
	s := newSigner("1")
	p := new(publisher)
	p.Serve(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/keys" {
			http.Redirect(w, r, "/keys", http.StatusFound)
			return
		}
		if r.Header.Get("Cache-Control") != "no-cache" {
			t.Error("a response from a cache is accepted")
		}
		_, _ = io.WriteString(w, publish(s))
	})
	want(t, trusting(t, overTLS(t, p, nil)), s.Token(), jwtauth.Accepted)
}

func TestJ11UnusableKeysAreSkippedAndNeverTheSet(t *testing.T) {
	s := newSigner("good")
	small := must(rsa.GenerateKey(rand.Reader, 1024))
	ed := b64(s.Private.Public().(ed25519.PublicKey))
	rsaN := b64(rsaKey().N.Bytes())
	bad := map[string]string{
		"RSA of 1024 bits":        `{"kty":"RSA","kid":"bad","n":"` + b64(small.N.Bytes()) + `","e":"AQAB"}`,
		"e of 1":                  `{"kty":"RSA","kid":"bad","n":"` + rsaN + `","e":"AQ"}`,
		"an even modulus":         `{"kty":"RSA","kid":"bad","n":"` + b64(append(rsaKey().N.Bytes()[:255:255], 0)) + `","e":"AQAB"}`,
		"RSA of 16 384 bits":      `{"kty":"RSA","kid":"bad","n":"` + b64([]byte(strings.Repeat("\xff", 2048))) + `","e":"AQAB"}`,
		"use of enc":              `{"kty":"OKP","kid":"bad","crv":"Ed25519","use":"enc","x":"` + ed + `"}`,
		"key_ops of encryption":   `{"kty":"OKP","kid":"bad","crv":"Ed25519","key_ops":["encrypt"],"x":"` + ed + `"}`,
		"a secret":                `{"kty":"oct","kid":"bad","alg":"HS256","k":"` + b64(secret) + `"}`,
		"a secret without alg":    `{"kty":"oct","kid":"bad","k":"` + b64(secret) + `"}`,
		"Ed448":                   `{"kty":"OKP","kid":"bad","crv":"Ed448","x":"` + b64(make([]byte, 57)) + `"}`,
		"alg for encryption":      `{"kty":"RSA","kid":"bad","alg":"RSA-OAEP","n":"` + rsaN + `","e":"AQAB"}`,
		"alg of another key type": `{"kty":"OKP","kid":"bad","alg":"RS256","crv":"Ed25519","x":"` + ed + `"}`,
		"alg none":                `{"kty":"OKP","kid":"bad","alg":"none","crv":"Ed25519","x":"` + ed + `"}`,
		"kid of a number":         `{"kty":"OKP","kid":7,"crv":"Ed25519","x":"` + ed + `"}`,
		"x twice":                 `{"kty":"OKP","kid":"bad","crv":"Ed25519","x":"` + ed + `","x":"` + ed + `"}`,
		"x5c of a number is fine": `{"kty":"OKP","kid":"fine","crv":"Ed25519","x5t":5,"x":"` + ed + `"}`,
		"null":                    `null`,
		"a number":                `7`,
		"empty":                   `{}`,
		"an unknown type":         `{"kty":"AKP","kid":"bad","alg":"ML-DSA-44","pub":"AAAA"}`,
	}
	for name, other := range bad {
		t.Run(name, func(t *testing.T) {
			p := new(publisher)
			p.Say(keySetOf(other, s.JWK(), other))
			var skipped atomic.Value
			remote := overTLS(t, p, func(c *jwk.RemoteConfig) { c.OnError = func(_ context.Context, err error) { skipped.Store(err) } })
			want(t, trusting(t, remote), s.Token(), jwtauth.Accepted)
			keys, _, err := remote.Find(t.Context(), "bad", jwk.EdDSA)
			if err != nil || len(keys) != 0 {
				t.Errorf("%v %v", keys, err)
			}
			if keys, _, _ := remote.Find(t.Context(), "bad", jwk.RS256); len(keys) != 0 {
				t.Errorf("%v", keys)
			}
			if keys, _, _ := remote.Find(t.Context(), "bad", jwk.HS256); len(keys) != 0 {
				t.Errorf("%v", keys)
			}
			switch name {
			case "x5c of a number is fine", "use of enc", "key_ops of encryption":
				if err := skipped.Load(); err != nil {
					t.Error(err)
				}
			default:
				eventually(t, "an error", func() bool { return skipped.Load() != nil })
				if err := skipped.Load().(error); !strings.Contains(err.Error(), "skipped") || strings.Contains(err.Error(), b64(secret)) {
					t.Error(err)
				}
			}
		})
	}
}

func TestJWKSKeysOfOneNameAreBothTried(t *testing.T) {
	first, second := newSigner("same"), newSigner("same")
	p := new(publisher)
	p.Say(publish(first, second))
	v := trusting(t, overTLS(t, p, nil))
	want(t, v, first.Token(), jwtauth.Accepted)
	want(t, v, second.Token(), jwtauth.Accepted)
	// But no more than 16, however many have the same kid.
	signers := make([]signer, 17)
	for n := range signers {
		signers[n] = newSigner("same")
	}
	p = new(publisher)
	p.Say(publish(signers...))
	v = trusting(t, overTLS(t, p, nil))
	want(t, v, signers[15].Token(), jwtauth.Accepted)
	want(t, v, signers[16].Token(), jwtauth.BadSignature)
}

func TestJWKSConfigFaults(t *testing.T) {
	_, err := jwk.NewRemote(jwk.RemoteConfig{
		URL: "http://issuer.example", Timeout: -1, RefreshEvery: -1, CoolDown: -1, StaleAfter: -1, MaxBody: -1, MaxKeys: -1,
	})
	const path = "jwk.RemoteConfig."
	wantFaults(t, err, path+"URL", path+"Timeout", path+"RefreshEvery", path+"CoolDown", path+"StaleAfter",
		path+"MaxBody", path+"MaxKeys")
	_, err = jwk.NewRemote(jwk.RemoteConfig{URL: "https://issuer.example", RefreshEvery: time.Hour, StaleAfter: time.Hour})
	wantFaults(t, err, path+"StaleAfter")
	for _, url := range []string{"", "issuer.example", "https://", "https://user:pass@issuer.example", "https://a/#b", "file:///etc/passwd", "https://a\nb"} {
		for _, plain := range []bool{false, true} {
			if _, err := jwk.NewRemote(jwk.RemoteConfig{URL: url, DangerouslyAllowHTTP: plain}); err == nil {
				t.Errorf("%q is accepted", url)
			}
		}
	}
	p := new(publisher)
	s := newSigner("1")
	p.Say(publish(s))
	server := httptest.NewServer(p)
	defer server.Close()
	remote := mustJWKS(t, jwk.RemoteConfig{URL: server.URL, Client: server.Client(), DangerouslyAllowHTTP: true})
	want(t, trusting(t, remote), s.Token(), jwtauth.Accepted)
}

func TestJWKSClientThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remote := mustJWKS(t, jwk.RemoteConfig{URL: "https://issuer.example", Client: &http.Client{Transport: panics{}}})
		want(t, trusting(t, remote), newSigner("1").Token(), jwtauth.Unavailable)
		if _, err := remote.Health(); err == nil || !strings.Contains(fmt.Sprint(err), "panic") {
			t.Error(err)
		}
	})
}

type panics struct{}

func (panics) RoundTrip(*http.Request) (*http.Response, error) { panic("no") }

// Keys belong to the issuer that publishes them.
func TestJWKSOfTwoIssuersAreNotPooled(t *testing.T) {
	first, second := newSigner("1"), newSigner("1")
	sets := make([]jwk.Set, 2)
	for n, s := range []signer{first, second} {
		p := new(publisher)
		p.Say(publish(s))
		sets[n] = overTLS(t, p, nil)
	}
	issuers := make([]jwtauth.TrustedIssuer, 2)
	for n, name := range []string{issuer, "https://other.example"} {
		issuers[n] = jwtauth.TrustedIssuer{
			Issuer: name, Audiences: []string{audience}, Algorithms: []jwk.Algorithm{jwk.EdDSA}, Keys: sets[n],
		}
	}
	v := mustVerifier(t, jwtauth.Config{Issuers: issuers})
	want(t, v, first.Token(), jwtauth.Accepted)
	want(t, v, second.Token(), jwtauth.BadSignature)
}

var _ usher.Detector = (*jwtauth.Verifier)(nil)
