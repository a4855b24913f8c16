package contract_test

import (
	"testing"

	"github.com/usher-go/usher/internal/contract"
)

func TestServices(t *testing.T) { contract.TestServices(t, contract.ServeMux) }
