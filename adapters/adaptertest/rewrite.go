package adaptertest

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// rewriting returns the ways to mount f, a middleware that buffers the response.
func rewriting(f middlewareFunc) []Step { return []Step{{Usher: f}, {Foreign: f.Wrap}} }

// checkRewritten compares the response with and without a rewriting middleware.
func checkRewritten(handler func(Context) error) func(*bench) error {
	return func(b *bench) error {
		bare := b.serve(App{Routes: []Route{get("/", handler)}}).get("/")
		var errs []error
		for _, step := range rewriting(rewrite) {
			a := b.serve(App{Use: []Step{step}, Routes: []Route{get("/", handler)}}).get("/")
			errs = append(errs,
				same("status", a.status, bare.status),
				same("body", a.body, "<"+bare.body+">"),
				same("Rewritten", a.header.Get("Rewritten"), "yes"),
				same("Content-Type", a.header.Get("Content-Type"), bare.header.Get("Content-Type")),
			)
			if length := a.header.Get("Content-Length"); length != "" {
				errs = append(errs, same("Content-Length", length, fmt.Sprint(len(a.body))))
			}
		}
		return errors.Join(errs...)
	}
}

func checkRewrittenFile(b *bench) error {
	path, _ := newFile(b, 3000)
	return checkRewritten(func(c Context) error { return c.File(path) })(b)
}

// newFile writes a text of n bytes.
func newFile(b *bench, n int) (path, text string) {
	path = filepath.Join(b.TempDir(), "file.txt")
	text = strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyz\n", n/37+1)[:n]
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	return path, text
}

func panics(Context) error { panic("a handler fails") }

func checkRewrittenFailure(path string, status int, outer ...Step) func(*bench) error {
	return func(b *bench) error {
		var errs []error
		for _, step := range rewriting(rewrite) {
			c := b.serve(App{Use: append(slices.Clip(outer), step), Routes: []Route{
				get("/error", func(c Context) error { return c.Fail(418) }),
				get("/panic", panics),
				get("/recovered", panics, Step{Recover: true}),
			}})
			errs = append(errs, same("status", c.get(path).status, status))
		}
		return errors.Join(errs...)
	}
}

// flushByAssertion flushes like a handler that asserts an http.Flusher.
func flushByAssertion(w http.ResponseWriter) error {
	f, ok := w.(http.Flusher)
	if !ok {
		return errors.New("the writer has no Flush")
	}
	f.Flush()
	return nil
}

func flushByController(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() }

// checkFlushBuffered has a handler flush inside f, which sets a header field after the
// handler has returned.
func checkFlushBuffered(f middlewareFunc, flush func(http.ResponseWriter) error) func(*bench) error {
	return func(b *bench) error {
		var errs []error
		for _, step := range rewriting(f) {
			a := b.serve(App{Use: []Step{step}, Routes: []Route{get("/", func(c Context) error {
				_, err := c.Writer().Write([]byte("a"))
				_ = flush(c.Writer()) // a buffering writer need not support it
				_, err2 := c.Writer().Write([]byte("b"))
				return all(err, err2)
			})}}).get("/")
			errs = append(errs,
				same("status", a.status, 200),
				same("body", a.body, "<ab>"),
				same("Rewritten", a.header.Get("Rewritten"), "yes"),
			)
		}
		return errors.Join(errs...)
	}
}
