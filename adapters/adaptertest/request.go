package adaptertest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
)

func checkBodyReplaced(b *bench) error {
	replace := middlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r = r.WithContext(r.Context())
		r.Body = io.NopCloser(strings.NewReader("replaced"))
		next.ServeHTTP(w, r)
	})
	var errs []error
	for _, step := range []Step{{Usher: replace}, {Foreign: replace.Wrap}} {
		c := b.serve(App{Use: []Step{step}, Routes: []Route{post("/", func(c Context) error {
			body, err := io.ReadAll(c.Request().Body)
			return all(err, c.Blob(200, "text/plain", body))
		})}})
		errs = append(errs, same("what the handler reads", c.do(http.MethodPost, "/", "sent").body, "replaced"))
	}
	return errors.Join(errs...)
}

// checkForm uploads a file that is too large for memory, through middlewares that
// copy the request.
func checkForm(b *bench) error {
	dir := b.TempDir()
	b.Setenv("TMPDIR", dir)
	files := func() int {
		entries, err := os.ReadDir(dir)
		if err != nil {
			b.Fatal(err)
		}
		return len(entries)
	}
	body, contentType := upload(b)
	c := b.serve(App{
		Use: []Step{{Usher: authenticate()}, {Foreign: authenticate().Wrap}},
		Routes: []Route{post("/", func(c Context) error {
			if err := c.Request().ParseMultipartForm(1); err != nil {
				return err
			}
			return c.String(200, fmt.Sprint(files()))
		})},
	})
	a := c.do(http.MethodPost, "/", body, "Caller: ann", "Content-Type: "+contentType)
	c.stop()
	return all(
		same("files while the handler runs", a.body, "1"),
		same("files afterwards", files(), 0),
	)
}

func upload(b *bench) (body, contentType string) {
	var buf bytes.Buffer
	form := multipart.NewWriter(&buf)
	file, err := form.CreateFormFile("file", "a.bin")
	if err == nil {
		_, err = file.Write(make([]byte, 64<<10))
	}
	if err := all(err, form.Close()); err != nil {
		b.Fatal(err)
	}
	return buf.String(), form.FormDataContentType()
}

func checkLateHeader(mount func(middlewareFunc) Step) func(*bench) error {
	return func(b *bench) error {
		late := mount(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(w, r)
			w.Header().Set("Late", "yes")
		})
		c := b.serve(App{Use: []Step{late}, Routes: []Route{get("/", func(Context) error { return nil })}})
		a := c.get("/")
		return all(same("status", a.status, 200), same("Late", a.header.Get("Late"), "yes"))
	}
}

func checkCompression(b *bench) error {
	text := strings.Repeat("a long text ", 500)
	return byAllWays(func(b *bench, t *tee, step Step) error {
		c := b.serve(App{
			Use:    []Step{{Compress: true}, step},
			Routes: []Route{get("/", func(c Context) error { return c.String(200, text) })},
		})
		a := c.get("/", "Accept-Encoding: gzip")
		seen, err := t.capture()
		if err := all(err, same("Content-Encoding", a.header.Get("Content-Encoding"), "gzip")); err != nil {
			return err
		}
		plain, err := unpack(a)
		return all(err,
			same("the unpacked body is the text", plain == text, true),
			same("captured", seen, capture{200, text, true}),
		)
	})(b)
}

// unpack returns the body of a, decoded by its Content-Encoding.
func unpack(a response) (string, error) {
	if a.header.Get("Content-Encoding") != "gzip" {
		return a.body, nil
	}
	zip, err := gzip.NewReader(strings.NewReader(a.body))
	if err != nil {
		return "", fmt.Errorf("the body is not compressed as its header announces: %w", err)
	}
	plain, err := io.ReadAll(zip)
	return string(plain), err
}

// checkCompressedError checks that a client can read an error that a handler returns,
// wherever compression is, even if the error is rendered outside of it.
func checkCompressedError(b *bench) error {
	compress, env := Step{Compress: true}, Step{Usher: must(envelope.New(envelope.Config{Wrap: true}))(b)}
	var errs []error
	for _, steps := range []struct{ all, group []Step }{
		{all: []Step{compress}},
		{all: []Step{compress, env}},
		{all: []Step{env, compress}},
		{all: []Step{env}, group: []Step{compress}},
		{all: []Step{env}, group: []Step{{Usher: newTee()}, compress}},
	} {
		c := b.serve(App{
			Use: steps.all, Failures: true,
			Group: Group{Prefix: "/group", Use: steps.group, Routes: []Route{get("/error", func(c Context) error {
				return c.Return(&usher.Error{Status: 409, Code: "taken"})
			})}},
		})
		a, err := c.try(http.MethodGet, "/group/error", "", "Accept-Encoding: gzip")
		if err != nil {
			return err
		}
		plain, err := unpack(a)
		errs = append(errs, err, same("status", a.status, 409), same("the code is in the body", strings.Contains(plain, `"taken"`), true))
	}
	return errors.Join(errs...)
}

// checkCompressedStack has the envelope, authentication and idempotency respond inside
// compression. The module peers tests the compressors of other libraries.
func checkCompressedStack(b *bench) error {
	use, keys := newStack(b, "ann")
	long := strings.Repeat("a long text ", 500)
	c := b.serve(App{
		Use: append([]Step{{Compress: true}}, use...),
		Group: Group{Prefix: "/group", Routes: []Route{
			post("/ok", func(c Context) error { return c.JSON(200, long) }),
			post("/fail", func(c Context) error {
				usher.Fail(c.Writer(), c.Request(), &usher.Error{Status: 402, Code: "no_credit", Message: long})
				return nil
			}),
			post("/error", func(c Context) error {
				http.Error(c.Writer(), "private", 400)
				return nil
			}),
		}},
	})
	ask := func(path, want, encoding string, header ...string) error {
		a := c.do(http.MethodPost, "/group"+path, "{}", append(header, "Accept-Encoding: "+encoding)...)
		plain, err := unpack(a)
		return all(err, same("start of the body of "+path+" for "+encoding, plain[:min(len(want), len(plain))], want))
	}
	errs := []error{ask("/ok", `{"error":{"code":"missing_credential"`, "gzip")}
	key := "X-API-Key: " + keys["ann"]
	for path, want := range map[string]string{
		"/ok":    `{"data":"a long`,
		"/fail":  `{"error":{"code":"no_credit","message":"a long`,
		"/error": `{"error":{"code":"bad_request","message":"private"`,
	} {
		for _, encodings := range [][]string{{"gzip", "identity", "gzip"}, {"identity", "gzip"}} {
			for _, encoding := range encodings {
				errs = append(errs, ask(path, want, encoding, key, "Idempotency-Key: "+encodings[0]+strings.TrimPrefix(path, "/")))
			}
		}
	}
	return errors.Join(errs...)
}
