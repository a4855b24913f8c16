package jose_test

import (
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/usher-go/usher/internal/jose"
)

func encoded(header, payload string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	return b64([]byte(header)) + "." + b64([]byte(payload)) + ".c2ln"
}

func TestAHeaderIsRememberedByItsExactText(t *testing.T) {
	h := jose.NewHeaders()
	known := encoded(`{"alg":"HS256","kid":"1"}`, `{}`)
	parsed, err := jose.Parse(known, h)
	if err != nil || parsed.Header != (jose.Header{Algorithm: "HS256", KeyID: "1"}) {
		t.Fatalf("%+v %v", parsed, err)
	}
	text, _, _ := strings.Cut(known, ".")
	if _, ok := h.Find(text); ok {
		t.Error("remembered before it was kept")
	}
	h.Keep(&parsed)
	if found, ok := h.Find(text); !ok || found != parsed.Header {
		t.Errorf("%+v %t", found, ok)
	}
	for range 2 {
		if again, err := jose.Parse(encoded(`{"alg":"HS256","kid":"1"}`, `{"a":1}`), h); err != nil || again.Header != parsed.Header || len(again.Claims) != 1 {
			t.Errorf("%+v %v", again, err)
		}
	}
	for header, want := range map[string]string{
		`{"alg":"HS256","kid":"2"}`:            "2",
		`{"alg":"HS256", "kid":"1"}`:           "1",
		`{"alg":"HS256","kid":"1","kid":"2"}`:  "",
		`{"alg":"HS256","kid":"1","crit":[1]}`: "",
		`{"alg":"HS256","kid":""}`:             "",
		`{"alg":"HS256","kid":"1","typ":""}`:   "",
		`{"alg":"","kid":"1"}`:                 "",
	} {
		if p, err := jose.Parse(encoded(header, `{}`), h); p.KeyID != want || (err == nil) != (want != "") {
			t.Errorf("%s: %+v %v", header, p, err)
		}
	}
}

func TestFewHeadersAreRemembered(t *testing.T) {
	h := jose.NewHeaders()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				parsed, err := jose.Parse(encoded(fmt.Sprintf(`{"alg":"HS256","kid":"%d"}`, i), `{}`), h)
				if err != nil || parsed.KeyID != fmt.Sprint(i) {
					t.Errorf("%d %d: %+v %v", g, i, parsed, err)
				}
				h.Keep(&parsed)
			}
		})
	}
	wg.Wait()
	remembered := 0
	for i := range 500 {
		text, _, _ := strings.Cut(encoded(fmt.Sprintf(`{"alg":"HS256","kid":"%d"}`, i), `{}`), ".")
		if _, ok := h.Find(text); ok {
			remembered++
		}
	}
	if remembered == 0 || remembered > 64 {
		t.Errorf("%d of 500", remembered)
	}
	long, err := jose.Parse(encoded(`{"alg":"HS256","x5c":["`+strings.Repeat("x", 2000)+`"]}`, `{}`), h)
	if err != nil {
		t.Fatal(err)
	}
	h.Keep(&long)
	text, _, _ := strings.Cut(long.Signed, ".")
	if _, ok := h.Find(text); ok {
		t.Error("a long header is remembered")
	}
}

// A token is a part of the header fields of a request, all of which its text would keep.
func TestARememberedHeaderKeepsNoRequest(t *testing.T) {
	h := jose.NewHeaders()
	const size, requests = 1 << 20, 200
	used := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := used()
	for i := range requests {
		request := strings.Repeat("x", size) + encoded(fmt.Sprintf(`{"alg":"HS256","kid":"%d"}`, i), `{}`)
		parsed, err := jose.Parse(request[size:], h)
		if err != nil {
			t.Fatal(err)
		}
		h.Keep(&parsed)
	}
	if after := used(); after > before+8*size {
		t.Errorf("%d bytes after %d", after, before)
	}
	runtime.KeepAlive(h)
}
