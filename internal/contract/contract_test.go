package contract_test

import (
	"testing"

	"github.com/usher-go/usher/internal/contract"
)

func TestServices(t *testing.T) { contract.TestServices(t, contract.ServeMux) }

func TestHostile(t *testing.T) { contract.TestHostile(t, contract.ServeMux) }
