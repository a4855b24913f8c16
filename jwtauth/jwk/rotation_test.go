package jwk_test

import (
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-go/usher/jwtauth/jwk"
)

// A rotating issuer signs with one key and publishes that alone. A response with its key
// set takes 100 ms.
type rotating struct {
	publisher
	present atomic.Pointer[signer]
}

func newRotating(id string) *rotating {
	r := new(rotating)
	r.rotate(id)
	r.Serve(func(w http.ResponseWriter, _ *http.Request) {
		set := publish(*r.present.Load())
		time.Sleep(100 * time.Millisecond)
		_, _ = io.WriteString(w, set)
	})
	return r
}

// rotate replaces the key, without notice.
func (r *rotating) rotate(id string) {
	next := newSigner(id)
	r.present.Store(&next)
}

// An API gets 200 requests a second while its issuer replaces the only key 10 times. Each
// token is signed with the key of its time.
func TestUnannouncedRotationsRefuseNoValidToken(t *testing.T) {
	for name, id := range map[string]func(n int) string{
		"each with an ID of its own": strconv.Itoa,
		"all with one ID":            func(int) string { return "same" },
		"none with an ID":            func(int) string { return "" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			issuer := newRotating(id(0))
			api := served(t, trusting(t, overTLS(t, &issuer.publisher, func(c *jwk.RemoteConfig) { c.CoolDown = 0 })))
			var (
				requests sync.WaitGroup
				mu       sync.Mutex
				statuses = make(map[int]int)
			)
			for n := range 11 {
				if n > 0 {
					issuer.rotate(id(n))
				}
				present := issuer.present.Load()
				var accepted atomic.Int64
				for sent := 0; accepted.Load() < 40; sent++ { // for about 200 ms after the fetch
					if sent == 2000 {
						requests.Wait()
						t.Fatalf("after rotation %d: %v", n, statuses)
					}
					requests.Go(func() {
						got := status(t, api.Client(), api.URL, present.Token())
						if got == http.StatusOK {
							accepted.Add(1)
						}
						if issuer.present.Load() != present {
							return // the key was removed meanwhile
						}
						mu.Lock()
						defer mu.Unlock()
						statuses[got]++
					})
					time.Sleep(5 * time.Millisecond)
				}
			}
			requests.Wait()
			t.Logf("responses by status: %v; %d fetches", statuses, issuer.Fetches.Load())
			delete(statuses, http.StatusOK)
			delete(statuses, http.StatusServiceUnavailable)
			if len(statuses) > 0 {
				t.Errorf("valid tokens were refused: %v", statuses)
			}
		})
	}
}
