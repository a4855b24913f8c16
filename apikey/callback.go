package apikey

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/guard"
)

// callback calls f, which calls the function of a configuration that has this name.
// A panic of that becomes a failure of the server, so a callback must come before
// what it could leave half done.
func callback(name string, f func() error) error {
	err := guard.Run(f)
	if p, ok := errors.AsType[*guard.PanicError](err); ok {
		return &usher.Error{
			Status: http.StatusInternalServerError,
			Code:   usher.CodeInternal,
			Cause:  fmt.Errorf("apikey: %s: %w", name, p),
		}
	}
	return err
}

// report tells onError of err. If that panics there is nobody left to be told.
func report(onError func(error), err error) {
	if onError != nil && err != nil {
		_ = guard.Run(func() error { onError(err); return nil })
	}
}
