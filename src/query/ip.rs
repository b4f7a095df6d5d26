//! `ip_in(ip, cidr)`: whether an address lies in a network.
//!
//! NULL in, NULL out; text that is no address is NULL too; a network that cannot be read is an error, as it
//! would otherwise silently match nothing. A v4 address is in no v6 network, nor the reverse.
use std::net::IpAddr;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_datafusion_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The function, to register.
pub(super) fn ip_in() -> ScalarUDF {
    ScalarUDF::new_from_impl(IpIn { signature: Signature::string(2, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct IpIn {
    signature: Signature,
}

impl ScalarUDFImpl for IpIn {
    fn name(&self) -> &str {
        "ip_in"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let networks = Networks::try_new(&args.args[1], rows)?;
        let addresses = cast(&args.args[0].to_array(rows)?, &DataType::Utf8View)?;
        let found: BooleanArray = addresses
            .as_string_view()
            .iter()
            .enumerate()
            .map(|(row, address)| {
                let address: IpAddr = address?.parse().ok()?;
                networks.of(row).map(|network| network.contains(address))
            })
            .collect();
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?),
            false => ColumnarValue::Array(Arc::new(found)),
        })
    }
}

/// The networks of a batch. A literal, which is the usual case, is read once.
enum Networks {
    Same(Option<Network>),
    PerRow(Vec<Option<Network>>),
}

impl Networks {
    fn try_new(value: &ColumnarValue, rows: usize) -> Result<Self> {
        match value {
            ColumnarValue::Scalar(value) => {
                let text = value.try_as_str().flatten();
                Ok(Self::Same(text.map(Network::try_new).transpose()?))
            }
            ColumnarValue::Array(_) => {
                let texts = cast(&value.to_array(rows)?, &DataType::Utf8View)?;
                let texts = texts.as_string_view().iter();
                Ok(Self::PerRow(
                    texts.map(|text| text.map(Network::try_new).transpose()).collect::<Result<_>>()?,
                ))
            }
        }
    }

    fn of(&self, row: usize) -> Option<Network> {
        match self {
            Self::Same(network) => *network,
            Self::PerRow(networks) => networks[row],
        }
    }
}

/// The leading `bits - shift` bits that all addresses of a network share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Network {
    is_v4: bool,
    shift: u32,
    prefix: u128,
}

impl Network {
    pub(super) fn try_new(text: &str) -> Result<Self> {
        let bad = || {
            exec_datafusion_err!("ip_in: '{text}' is not a network; write it as 10.0.0.0/8 or 2001:db8::/32")
        };
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let len: u32 = len.map_or(Ok(bits), str::parse).map_err(|_| bad())?;
        let shift = bits.checked_sub(len).ok_or_else(bad)?;
        Ok(Self { is_v4: address.is_ipv4(), shift, prefix: prefix(address, shift) })
    }

    fn contains(self, address: IpAddr) -> bool {
        self.is_v4 == address.is_ipv4() && self.prefix == prefix(address, self.shift)
    }
}

fn prefix(address: IpAddr, shift: u32) -> u128 {
    let bits = match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    bits.checked_shr(shift).unwrap_or(0)
}
