package usherecho4

import (
	"io"
	"net/http"
	"reflect"
)

// A body translates the errors of a request body for a middleware that reads it. The errors
// of echo v4 have their status in a field, so that a middleware outside of echo cannot see
// that echo's BodyLimit, say, means 413.
type body struct{ io.ReadCloser }

func (b body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // a reader returns it as it is
		err = neutral(err, nil)
	}
	return n, err
}

// translate replaces the body of r if an echo middleware has replaced that of the server.
func translate(r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	t := reflect.TypeOf(r.Body)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.PkgPath() != "net/http" {
		r.Body = body{r.Body}
	}
}

// restore undoes translate: handlers get the errors of echo as they are.
func restore(r *http.Request) {
	if b, ok := r.Body.(body); ok {
		r.Body = b.ReadCloser
	}
}
