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
		zip, err := gzip.NewReader(strings.NewReader(a.body))
		if err != nil {
			return err
		}
		plain, err := io.ReadAll(zip)
		return all(err,
			same("the unpacked body is the text", string(plain) == text, true),
			same("captured", seen, capture{200, text, true}),
		)
	})(b)
}
