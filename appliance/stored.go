package appliance

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/weirhq/weir/appliance/api/kinesis"
	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/sink"
	"github.com/weirhq/weir/storage"
)

// StoredRow is a row of a table as it is shown to people: its secrets are ***.
type StoredRow struct {
	Table string `json:"table"`
	Key   []byte `json:"key"`
	Name  string `json:"name,omitempty"` // the key, when it is text
	Value any    `json:"value"`          // a JSON document as such, anything else in base64
}

// ShowRow shows a row of a table. The log knows nothing of what the parts of the box
// keep in its tables; here it is known where secrets are.
func ShowRow(r storage.TableItem) StoredRow {
	out := StoredRow{Table: r.Table, Key: r.Key, Value: r.Value}
	if text := string(r.Key); utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl) {
		out.Name = text
	}
	switch {
	case r.Table == storage.TableSetting.String() && kinesis.HoldsSecret(r.Key):
		out.Value = "***"
	case r.Table == storage.TableDelivery.String() && delivery.HoldsSettings(r.Key):
		if doc, err := sink.HideSecrets(r.Value); err == nil {
			out.Value = json.RawMessage(doc)
		} else {
			out.Value = "***" // it can't be said what is in it
		}
	case bytes.HasPrefix(r.Value, []byte("{")) && json.Valid(r.Value):
		out.Value = json.RawMessage(r.Value)
	}
	return out
}
