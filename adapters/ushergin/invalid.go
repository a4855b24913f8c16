package ushergin

import (
	"errors"
	"slices"

	"github.com/gin-gonic/gin"
	"github.com/gin-gonic/gin/binding"
	"github.com/go-playground/validator/v10"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/malformed"
)

// invalid returns the error for a client whose request could not be bound or is not valid,
// or whose handler has a text for it; else nil.
func invalid(c *gin.Context, last *gin.Error) *usher.Error {
	err := last.Err
	bind := last.IsType(gin.ErrorTypeBind)
	if bind || ofValidator(err) || explained(c, err) {
		if e, ok := malformed.Of(err, nil); ok {
			return e
		}
	}
	if !bind && !last.IsType(gin.ErrorTypePublic) {
		return nil
	}
	e := usher.Invalid()
	e.Cause = err
	if !bind {
		e.Message = err.Error()
	}
	return e
}

// ofValidator reports whether err is about fields that are not valid.
func ofValidator(err error) bool {
	if _, ok := errors.AsType[validator.ValidationErrors](err); ok {
		return true
	}
	list, ok := errors.AsType[binding.SliceValidationError](err)
	return ok && slices.ContainsFunc(list, ofValidator)
}

// Validator returns v with errors that name fields as clients do, by the tags json, form,
// uri and header of the type. Set it once, before the engine serves:
//
//	binding.Validator = ushergin.Validator(binding.Validator)
//
// Without it, [Errors] names fields as the validator does: as in Go, unless the program
// has called RegisterTagNameFunc. The errors are [*usher.Error], for which errors.As finds
// the validator.ValidationErrors.
func Validator(v binding.StructValidator) binding.StructValidator { return namer{v} }

type namer struct{ binding.StructValidator }

func (n namer) ValidateStruct(in any) error {
	err := n.StructValidator.ValidateStruct(in)
	if e, ok := malformed.Of(err, in); ok && ofValidator(err) {
		return e
	}
	return err
}
