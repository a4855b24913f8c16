package apikey

import (
	"errors"
	"net/http"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/jsonbody"
)

// levels describes the JSON of an [usher.Level].
const levels = "none, read_only, read_write or full"

// readBody reads the body of r. Its error is the response to a body that is not a JSON
// object.
func readBody(w http.ResponseWriter, r *http.Request, limit int64, empty jsonbody.Empty) (*jsonbody.Object[usher.Field], error) {
	o, err := jsonbody.Read[usher.Field](w, r, limit, empty)
	e, ok := errors.AsType[*jsonbody.Error](err)
	if !ok {
		return o, err
	}
	code := usher.CodeValidationFailed
	switch e.Status {
	case http.StatusForbidden:
		code = usher.CodeCrossOriginRequest
	case http.StatusUnsupportedMediaType:
		code = usher.CodeUnsupportedMediaType
	}
	return nil, &usher.Error{Status: e.Status, Code: code, Message: e.Message, Cause: e.Cause}
}

// bodyFault returns the response to a body with invalid members, or nil if all are valid.
func bodyFault(o *jsonbody.Object[usher.Field]) error {
	if faults := o.Faults(); len(faults) > 0 {
		return usher.Invalid(faults...)
	}
	return nil
}
