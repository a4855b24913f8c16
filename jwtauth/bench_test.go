package jwtauth_test

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// BenchmarkAuthenticate measures, for each algorithm, a token that is remembered, a token
// that is verified again, and for comparison the bare verification of its signature.
func BenchmarkAuthenticate(b *testing.B) {
	for _, vec := range vectors(b, "node.json") {
		key := vec.key(b)
		i := jwtauth.TrustedIssuer{
			Issuer: issuer, Audiences: []string{audience},
			Algorithms: []jwk.Algorithm{vec.Algorithm}, Keys: jwk.Static{key},
		}
		cached := mustVerifier(b, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}})
		uncached := mustVerifier(b, jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{i}, CacheCapacity: -1})
		r := request(b, vec.Token)
		for name, v := range map[string]*jwtauth.Verifier{"cached": cached, "uncached": uncached} {
			b.Run(string(vec.Algorithm)+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := v.Authenticate(r); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		last := strings.LastIndexByte(vec.Token, '.')
		signature := must(base64.RawURLEncoding.DecodeString(vec.Token[last+1:]))
		b.Run(string(vec.Algorithm)+"/raw", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := key.Verify(vec.Token[:last], signature); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkMiddleware(b *testing.B) {
	h := usher.Authenticate(verifier(b, nil)).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for name, r := range map[string]*http.Request{
		"remembered":                 request(b, good()),
		"remembered, with holder":    usher.Track(request(b, good())),
		"garbage with response":      request(b, "garbage"),
		"bad signature and response": request(b, good()[:len(good())-43]+strings.Repeat("A", 43)),
	} {
		b.Run(name, func(b *testing.B) {
			w := discard{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
		})
	}
}

func BenchmarkParallel(b *testing.B) {
	v := verifier(b, nil)
	requests := make([]*http.Request, 1000)
	for i := range requests {
		requests[i] = request(b, token(claims(map[string]any{"jti": strconv.Itoa(i)})))
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := v.Authenticate(requests[i%len(requests)]); err != nil {
				b.Error(err)
			}
		}
	})
}
