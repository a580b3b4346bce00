"""What Dagster keeps private and this package needs all the same: look here first when a new version of it is out."""

from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.event_api import AssetEventType, PartitionKeyFilter
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.execution.stats import StepEventStatus
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)
from dagster._core.storage.tags import BACKFILL_ID_TAG
from dagster.components.core.component_tree import ComponentTreeException

__all__ = [
    "BACKFILL_ID_TAG",
    "AssetCheckEvaluationTargetMaterializationData",
    "AssetCheckExecutionRecord",
    "AssetCheckExecutionRecordStatus",
    "AssetEventType",
    "BulkActionStatus",
    "BulkActionsFilter",
    "ComponentTreeException",
    "PartitionKeyFilter",
    "StepEventStatus",
    "UnresolvedAssetJobDefinition",
]
