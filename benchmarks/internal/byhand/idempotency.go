package byhand

import (
	"bytes"
	"crypto/sha256"
	"io"
	"maps"
	"net/http"
	"sync"
	"time"
)

// Idempotency runs a request with an Idempotency-Key once and replays its response.
// It leaves out the caller, the method and the route, which are no part of the
// key, so one caller can read the response to another; bounds on memory, bodies and
// waiting; streams; leases; a store that several processes share; metrics; and,
// without Fingerprint, the check that a retry is the same request.
type Idempotency struct {
	// Fingerprint refuses a key that comes with another method, path or body.
	Fingerprint bool

	mu      sync.Mutex
	records map[string]*record
}

// ttl is how long a response is kept.
const ttl = 24 * time.Hour

type record struct {
	done        chan struct{}
	fingerprint [sha256.Size]byte
	until       time.Time
	status      int
	header      http.Header
	body        []byte
}

// Wrap runs next once for each key.
func (i *Idempotency) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("Idempotency-Key")
		if key == "" || r.Method != http.MethodPost && r.Method != http.MethodPatch {
			next.ServeHTTP(w, r)
			return
		}
		var fingerprint [sha256.Size]byte
		if i.Fingerprint {
			var err error
			if fingerprint, err = fingerprintOf(r); err != nil {
				http.Error(w, "cannot read the body", http.StatusBadRequest)
				return
			}
		}
		own, rec := i.claim(key, fingerprint)
		if !own {
			if rec.fingerprint != fingerprint {
				http.Error(w, "another request has used this key", http.StatusUnprocessableEntity)
				return
			}
			<-rec.done
			rec.replay(w)
			return
		}
		i.run(key, rec, w, r, next)
	})
}

func fingerprintOf(r *http.Request) (sum [sha256.Size]byte, err error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return sum, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	h := sha256.New()
	_, _ = io.WriteString(h, r.Method+"\n"+r.URL.Path+"\n")
	_, _ = h.Write(body)
	h.Sum(sum[:0])
	return sum, nil
}

func (i *Idempotency) claim(key string, fingerprint [sha256.Size]byte) (own bool, rec *record) {
	now := time.Now()
	i.mu.Lock()
	defer i.mu.Unlock()
	if rec = i.records[key]; rec != nil && now.Before(rec.until) {
		return false, rec
	}
	rec = &record{done: make(chan struct{}), fingerprint: fingerprint, until: now.Add(ttl)}
	if i.records == nil {
		i.records = make(map[string]*record)
	}
	i.records[key] = rec
	return true, rec
}

func (i *Idempotency) run(key string, rec *record, w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec.status = http.StatusInternalServerError
	defer func() {
		if rec.status >= http.StatusInternalServerError {
			i.mu.Lock()
			delete(i.records, key)
			i.mu.Unlock()
		}
		close(rec.done)
	}()
	kept := &recorder{header: make(http.Header)}
	next.ServeHTTP(kept, r)
	rec.header, rec.body = kept.header, kept.body.Bytes()
	rec.status = max(kept.status, http.StatusOK)
	rec.write(w)
}

func (rec *record) replay(w http.ResponseWriter) {
	w.Header().Set("Idempotency-Replayed", "true")
	rec.write(w)
}

func (rec *record) write(w http.ResponseWriter) {
	maps.Copy(w.Header(), rec.header.Clone())
	w.WriteHeader(rec.status)
	_, _ = w.Write(rec.body)
}

// A recorder keeps a response.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }
